// Lets the viewer follow the mouse, the keyboard and the finger. Without it every link of the page still works.
"use strict";

(() => {
  const main = document.querySelector("main.view[data-series]");
  if (!main) return;
  const AHEAD = 6, KEPT = 400, SVG = "http://www.w3.org/2000/svg";
  const find = (selector) => main.querySelector(selector);
  const stage = find("#stage"), slider = find("#slider"), place = find("#place"), told = find("#window"), shapes = find("#shapes");
  const image = stage.querySelector(".view-image"), overlays = [...stage.querySelectorAll(".view-overlay")];
  const letters = [...main.querySelectorAll(".view-edge")];  // left, top, right, bottom
  const opacity = find("#opacity"), edge = find("#edge");
  const loading = new Map();
  let scene, index = Number(main.dataset.slice), preset = main.dataset.window, own = null, direction = 1, shown = 0;

  // ---------------------------------------------------------------------------------------------------------- addresses

  const through = () => own ? own.map((value) => Math.round(value * 100) / 100).join(",") : (scene.presets[preset] || [preset]).join(",");
  const imageOf = (at) => {
    const [uid, frame, version] = scene.slices[at];
    return `${scene.base}/image/${uid}/${frame}?window=${encodeURIComponent(through())}&v=${version}`;
  };
  const isHidden = (layer, number) => {
    const box = find(`input[name=hide][value="${layer}.${number}"]`);
    return box && !box.checked;
  };
  const overlayOf = (at, number) => {
    const layer = scene.layers[number], [uid, frame] = scene.slices[at];
    const seen = Object.keys(layer.slices).filter((one) => layer.slices[one].has(at) && !isHidden(number, one));
    if (!seen.length) return "";
    return `${scene.base}/overlay/${layer.uid}/${uid}/${frame}/${seen.join(",")}.png?edge=${edge && edge.checked ? 1 : 0}&v=${layer.version}`;
  };
  const addresses = (at) => [imageOf(at), ...scene.layers.map((_, number) => overlayOf(at, number))];

  // ----------------------------------------------------------------------------------------------------------- pictures

  const load = (address) => {
    if (!address) return Promise.resolve();
    if (!loading.has(address)) {
      const picture = new Image();
      picture.src = address;
      loading.set(address, picture.decode().then(() => picture, () => loading.delete(address)));
      if (loading.size > KEPT) loading.delete(loading.keys().next().value);
    }
    return loading.get(address);
  };

  const put = (element, address) => {
    if (!address) element.removeAttribute("href");
    else if (element.getAttribute("href") !== address) element.setAttribute("href", address);
  };

  async function show() {
    const mine = ++shown, wanted = addresses(index);
    tell();
    await Promise.all(wanted.map(load));
    if (mine !== shown) return;  // somebody has moved on
    fit();
    put(image, wanted[0]);
    overlays.forEach((element, number) => put(element, wanted[number + 1]));
    draw();
    stage.dataset.shown = index;
    for (let step = 1; step <= AHEAD; step++) {
      const next = index + step * direction;
      if (next >= 0 && next < scene.slices.length) addresses(next).forEach(load);
    }
  }

  function tell() {
    slider.value = index + 1;
    place.textContent = `${index + 1} / ${scene.slices.length}`;
    stage.setAttribute("aria-label", `Slice ${index + 1} of ${scene.slices.length}`);
    const [center, width] = own || scene.presets[preset] || (preset ? [] : scene.window);
    told.textContent = width ? `C ${Math.round(center)}  W ${Math.round(width)}` : "";
    main.querySelectorAll("#windows a").forEach((one) => one.toggleAttribute("aria-current", !own && one.dataset.window === preset));
    main.querySelectorAll(".view-measured tr").forEach((row) => {
      const link = row.querySelector("a[data-slice]");
      row.classList.toggle("view-here", Boolean(link) && Number(link.dataset.slice) === index);
    });
    const query = new URLSearchParams(location.search);
    query.set("series", scene.series);
    query.set("slice", index + 1);
    if (preset) query.set("window", preset); else query.delete("window");
    query.delete("hide");
    history.replaceState(null, "", `?${query}`);
  }

  // Slices of one series may lie in several planes, as those of a localizer do: each has its own size and its own sides of the patient.
  function fit() {
    const [columns, rows, aspect] = scene.sizes[index];
    stage.setAttribute("viewBox", `0 0 ${columns} ${rows * aspect}`);
    for (const one of [image, ...overlays]) {
      one.setAttribute("width", columns);
      one.setAttribute("height", rows * aspect);
    }
    shapes.setAttribute("transform", `scale(1 ${aspect})`);
    letters.forEach((one, number) => { one.textContent = scene.edges[index][number]; });
  }

  function draw() {
    shapes.replaceChildren(...scene.shapes.filter((one) => one.slice === index).map(shapeOf));
  }

  function shapeOf(one) {
    const [[x, y], second] = one.points;
    const round = one.points.length === 1 || one.kind === "CIRCLE";
    const element = document.createElementNS(SVG, round ? "circle" : "polyline");
    if (round) {
      element.setAttribute("cx", x);
      element.setAttribute("cy", y);
      element.setAttribute("r", second ? Math.hypot(second[0] - x, second[1] - y) : 3);
    } else {
      element.setAttribute("points", one.points.map((point) => point.join(",")).join(" "));
    }
    const title = document.createElementNS(SVG, "title");
    title.textContent = one.label;
    element.append(title);
    return element;
  }

  // ------------------------------------------------------------------------------------------------------------ control

  function go(to) {
    const next = Math.min(Math.max(to, 0), scene.slices.length - 1);
    if (next === index) return;
    direction = Math.sign(next - index);
    index = next;
    show();
  }

  const KEYS = {
    ArrowUp: () => index - 1, ArrowLeft: () => index - 1, ArrowDown: () => index + 1, ArrowRight: () => index + 1,
    PageUp: () => index - 10, PageDown: () => index + 10, Home: () => 0, End: () => scene.slices.length - 1,
  };

  function control() {
    document.addEventListener("keydown", (event) => {
      if (!KEYS[event.key] || event.target.matches("input:not([type=checkbox])") || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      go(KEYS[event.key]());
    });
    let rolled = 0;
    stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      rolled += event.deltaMode ? event.deltaY * 40 : event.deltaY;
      const steps = Math.trunc(rolled / 40);
      if (steps) { rolled -= steps * 40; go(index + steps); }
    }, { passive: false });
    slider.addEventListener("input", () => go(Number(slider.value) - 1));
    main.addEventListener("click", (event) => {
      const link = event.target.closest("a[data-slice], a[data-window], #before, #after");
      if (!link) return;
      event.preventDefault();
      if (link.dataset.slice !== undefined) go(Number(link.dataset.slice));
      else if (link.dataset.window !== undefined) { preset = link.dataset.window; own = null; show(); }
      else go(index + (link.id === "before" ? -1 : 1));
    });
    main.querySelectorAll("input[name=hide], #edge").forEach((box) => box.addEventListener("change", show));
    if (opacity) opacity.addEventListener("input", () => overlays.forEach((one) => one.setAttribute("opacity", opacity.value / 100)));
    drag();
  }

  // A mouse that is dragged changes the window: across the width, up and down the center. A finger goes through the slices.
  function drag() {
    let from = null;
    stage.addEventListener("pointerdown", (event) => {
      const now = own || scene.presets[preset] || scene.window;
      from = { x: event.clientX, y: event.clientY, window: now, index };
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", (event) => {
      if (!from) return;
      const across = event.clientX - from.x, down = event.clientY - from.y;
      if (event.pointerType === "touch") { go(from.index + Math.round(down / 12)); return; }
      if (Math.hypot(across, down) < 4) return;
      const [center, width] = from.window, step = Math.max(width, 1) / 300;
      own = [center + down * step, Math.max(width + across * step, 1)];
      later();
    });
    for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => { from = null; });
  }

  let waits = 0;
  function later() {
    cancelAnimationFrame(waits);
    waits = requestAnimationFrame(show);
  }

  // -------------------------------------------------------------------------------------------------------------- start

  fetch(`/view/${main.dataset.study}/scene?series=${main.dataset.series}`)
    .then((answer) => { if (!answer.ok) throw new Error(answer.statusText); return answer.json(); })
    .then((found) => {
      scene = found;
      for (const layer of scene.layers) for (const number of Object.keys(layer.slices)) layer.slices[number] = new Set(layer.slices[number]);
      // Without script a tick hides a segment; with it a tick shows one.
      main.querySelectorAll("input[name=hide]").forEach((box) => { box.checked = !box.checked; });
      main.classList.add("view-live");
      control();
      show();
    });
})();
