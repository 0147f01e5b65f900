"""Models behind servers, asked over HTTP: vLLM, TEI, llama.cpp, an endpoint of a cloud."""
