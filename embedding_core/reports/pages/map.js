// The map of a report: points on a canvas that can be hovered, searched, zoomed and walked by keys.
// Texts come from documents, so they enter the page as text alone, never as HTML.
{
  const data = JSON.parse(document.getElementById("points").textContent);
  const canvas = document.getElementById("map");
  const pen = canvas.getContext("2d");
  const tip = document.getElementById("tip");
  const status = document.getElementById("status");
  const search = document.getElementById("search");
  const chosenCard = document.getElementById("chosen");
  const legend = [...document.querySelectorAll(".legend button")];
  const more = document.getElementById("more");
  const listed = document.querySelector("#listed tbody");

  const n = data.x.length;
  const lower = data.text.map((text, i) => `${text}\n${data.doc[i]}`.toLowerCase());
  const colourOf = (i) => (data.group.length ? data.group[i] : 0);
  const ROWS = 50, NEAR = 14, RADIUS = n > 1500 ? 2.6 : 4;

  let view = null; // {scale, left, top}: pixel = (value - left) * scale
  let shown = new Uint8Array(n).fill(1);
  let matches = n, chosen = -1, hovered = -1, only = -1, waiting = false, rowsListed = 0;
  let colours = [], ink = "", picture = null, pixels = null, disc = [];

  // 1. Places: data to pixels, the same scale on both axes.

  const span = (values) => {
    let low = Infinity, high = -Infinity;
    for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
    return [low, high];
  };
  const [x0, x1] = span(data.x), [y0, y1] = span(data.y);
  const width = () => canvas.clientWidth, height = () => canvas.clientHeight;

  function reset() {
    const room = 24;
    const scale = Math.min(
      (width() - 2 * room) / (x1 - x0 || 1e-9), (height() - 2 * room) / (y1 - y0 || 1e-9), 1e6);
    view = {
      scale,
      left: (x0 + x1) / 2 - width() / 2 / scale,
      top: (y0 + y1) / 2 + height() / 2 / scale,
    };
    schedule();
  }
  const px = (i) => (data.x[i] - view.left) * view.scale;
  const py = (i) => (view.top - data.y[i]) * view.scale;

  function zoom(factor, atX = width() / 2, atY = height() / 2) {
    const scale = view.scale * factor;
    view.left += atX / view.scale - atX / scale;
    view.top -= atY / view.scale - atY / scale;
    view.scale = scale;
    schedule();
  }
  function move(dx, dy) {
    view.left -= dx / view.scale;
    view.top += dy / view.scale;
    schedule();
  }

  // 2. Drawing: dots are written into the picture's pixels. Without a GPU that takes half a
  // millisecond for 5,000 points; as many calls of drawImage or arc take 10 to 20.

  function restyle() {
    ink = getComputedStyle(canvas).color;
    colours = [...document.querySelectorAll(".map .swatch")].map((swatch) => {
      const [red, green, blue] = getComputedStyle(swatch).backgroundColor.match(/\d+/g);
      return (blue << 16) | (green << 8) | Number(red);
    });
    schedule();
  }
  function resize() {
    const dots = devicePixelRatio || 1;
    canvas.width = Math.max(1, Math.round(width() * dots));
    canvas.height = Math.max(1, Math.round(height() * dots));
    picture = pen.createImageData(canvas.width, canvas.height);
    pixels = new Uint32Array(picture.data.buffer);
    disc = [];
    const radius = RADIUS * dots, edge = Math.ceil(radius);
    for (let dy = -edge; dy <= edge; dy++) {
      for (let dx = -edge; dx <= edge; dx++) {
        const cover = Math.min(1, radius + 0.5 - Math.hypot(dx, dy));
        if (cover > 0) disc.push([dx, dy, cover]);
      }
    }
    if (view) schedule(); else reset();
  }
  function draw() {
    waiting = false;
    const dots = devicePixelRatio || 1;
    pixels.fill(0);
    if (matches < n) stamp(0, 0.12, dots);
    stamp(1, 0.9, dots);
    pen.putImageData(picture, 0, 0);
    pen.setTransform(dots, 0, 0, dots, 0, 0);
    for (const [i, line] of [[hovered, 1.5], [chosen, 3]]) {
      if (i < 0) continue;
      pen.strokeStyle = ink;
      pen.lineWidth = line;
      pen.beginPath();
      pen.arc(px(i), py(i), RADIUS + 3, 0, 2 * Math.PI);
      pen.stroke();
    }
  }
  function stamp(lit, opacity, dots) { // the points that are lit, or those that are not
    const across = canvas.width, down = canvas.height;
    for (let i = 0; i < n; i++) {
      if (shown[i] !== lit) continue;
      const x = Math.round(px(i) * dots), y = Math.round(py(i) * dots);
      if (x < -20 || y < -20 || x > across + 20 || y > down + 20) continue;
      const colour = colours[colourOf(i)];
      for (const [dx, dy, cover] of disc) {
        const column = x + dx, row = y + dy;
        if (column < 0 || row < 0 || column >= across || row >= down) continue;
        const place = row * across + column, alpha = Math.round(255 * opacity * cover);
        if (alpha >= pixels[place] >>> 24) pixels[place] = ((alpha << 24) | colour) >>> 0;
      }
    }
  }
  function schedule() {
    if (!waiting) { waiting = true; requestAnimationFrame(draw); }
  }

  // 3. Which points are lit: by the search and by the legend.

  function filter() {
    const words = search.value.trim().toLowerCase();
    matches = 0;
    for (let i = 0; i < n; i++) {
      shown[i] = (only < 0 || colourOf(i) === only) && lower[i].includes(words) ? 1 : 0;
      matches += shown[i];
    }
    status.textContent = matches < n
      ? `${matches.toLocaleString("en")} of ${n.toLocaleString("en")} points`
      : `${n.toLocaleString("en")} points`;
    if (chosen >= 0 && !shown[chosen]) choose(-1);
    list(true);
    schedule();
  }

  // 4. One point: its text beside the pointer, and in the card below.

  function put(parent, name, text, className) {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  }
  function describe(parent, i) {
    parent.replaceChildren();
    const head = put(parent, "div", undefined, "muted");
    const name = put(head, "bdi", data.doc[i]);
    name.dir = "auto";
    if (data.group.length) {
      head.append(` · ${data.field}: `);
      put(head, "bdi", data.labels[data.group[i]]).dir = "auto";
    }
    put(parent, "div", data.text[i], "quoted").dir = "auto";
  }
  function nearest(x, y, most) {
    let best = -1, least = most * most;
    for (let i = 0; i < n; i++) {
      if (!shown[i]) continue;
      const dx = px(i) - x, dy = py(i) - y, d = dx * dx + dy * dy;
      if (d < least) { least = d; best = i; }
    }
    return best;
  }
  function hover(i, x, y) {
    if (i !== hovered) { hovered = i; schedule(); }
    tip.hidden = i < 0;
    if (i < 0) return;
    describe(tip, i);
    const left = Math.min(x + 14, width() - tip.offsetWidth - 4);
    const above = y + 14 + tip.offsetHeight > height();
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${above ? Math.max(4, y - tip.offsetHeight - 10) : y + 14}px`;
  }
  function choose(i) {
    chosen = i;
    chosenCard.hidden = i < 0;
    if (i >= 0) {
      describe(chosenCard, i);
      const x = px(i), y = py(i);
      if (x < 0 || y < 0 || x > width() || y > height()) move(width() / 2 - x, height() / 2 - y);
    }
    schedule();
  }
  function step(dx, dy) { // the nearest lit point within 45 degrees of a direction
    if (chosen < 0) return choose(nearest(width() / 2, height() / 2, Infinity));
    let best = -1, least = Infinity;
    for (let i = 0; i < n; i++) {
      if (!shown[i] || i === chosen) continue;
      const rx = px(i) - px(chosen), ry = py(i) - py(chosen);
      const along = rx * dx + ry * dy, aside = Math.abs(rx * dy - ry * dx);
      if (along <= 0 || aside > along) continue;
      const far = along + aside;
      if (far < least) { least = far; best = i; }
    }
    if (best >= 0) choose(best);
  }

  // 5. The same points as a table, some rows at a time.

  function list(afresh) {
    if (afresh) { listed.replaceChildren(); rowsListed = 0; }
    const lit = [];
    for (let i = 0; i < n && lit.length < rowsListed + ROWS; i++) if (shown[i]) lit.push(i);
    for (const i of lit.slice(rowsListed)) {
      const row = put(listed, "tr");
      const button = put(put(row, "td"), "button", "Show");
      button.setAttribute("aria-label", `Show ${data.doc[i]} on the map`);
      button.addEventListener("click", () => { choose(i); canvas.focus(); });
      put(put(row, "td"), "bdi", data.doc[i]).dir = "auto";
      if (data.group.length) put(put(row, "td"), "bdi", data.labels[data.group[i]]).dir = "auto";
      put(put(row, "td", undefined, "text"), "span", data.text[i], "quoted").dir = "auto";
    }
    rowsListed = lit.length;
    more.hidden = rowsListed >= matches;
  }

  // 6. What people do.

  let dragged = null;
  canvas.addEventListener("pointerdown", (event) => {
    dragged = { x: event.offsetX, y: event.offsetY, far: 0 };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!dragged) {
      hover(nearest(event.offsetX, event.offsetY, NEAR), event.offsetX, event.offsetY);
      return;
    }
    const dx = event.offsetX - dragged.x, dy = event.offsetY - dragged.y;
    dragged = { x: event.offsetX, y: event.offsetY, far: dragged.far + Math.abs(dx) + Math.abs(dy) };
    if (dragged.far > 3) { hover(-1); move(dx, dy); }
  });
  canvas.addEventListener("pointerup", (event) => {
    if (dragged && dragged.far <= 3) choose(nearest(event.offsetX, event.offsetY, NEAR));
    dragged = null;
  });
  canvas.addEventListener("pointercancel", () => { dragged = null; });
  canvas.addEventListener("pointerleave", () => hover(-1));
  canvas.addEventListener("wheel", (event) => {
    // a page that is scrolled past the map goes on scrolling; who has clicked the map zooms it
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * 0.0015), event.offsetX, event.offsetY);
  }, { passive: false });
  const keys = {
    ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0),
    ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1),
    "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: reset,
    Escape: () => choose(-1),
  };
  canvas.addEventListener("keydown", (event) => {
    const action = keys[event.key];
    if (action && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); action(); }
  });
  search.addEventListener("input", filter);
  more.addEventListener("click", () => list(false));
  document.getElementById("nearer").addEventListener("click", () => zoom(1.4));
  document.getElementById("farther").addEventListener("click", () => zoom(1 / 1.4));
  document.getElementById("reset").addEventListener("click", reset);
  legend.forEach((button, group) => button.addEventListener("click", () => {
    only = only === group ? -1 : group;
    legend.forEach((other, i) => other.setAttribute("aria-pressed", String(i === only)));
    filter();
  }));
  document.addEventListener("themechange", restyle);
  new ResizeObserver(resize).observe(canvas);
  resize();
  restyle();
  filter();
}
