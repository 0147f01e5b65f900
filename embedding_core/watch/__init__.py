"""What is seen of work while it goes on: whose it is, where its time goes, its spans.

Knows no Prefect, no Ray and no OpenTelemetry: whoever runs the work brings them.
"""
