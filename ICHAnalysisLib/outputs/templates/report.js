"use strict";
(() => {
  const section = document.getElementById("slices");
  if (!section) return;
  const cells = [...section.querySelectorAll(".grid .cell")];
  const stage = section.querySelector(".stage");
  const range = section.querySelector("input[type=range]");
  const caption = section.querySelector(".caption");
  const viewer = section.querySelector(".viewer");
  let current = Number(range.value) - 1;
  const show = (index) => {
    current = Math.max(0, Math.min(cells.length - 1, index));
    range.value = String(current + 1);
    range.setAttribute("aria-valuetext", cells[current].dataset.caption);
    stage.replaceChildren(cells[current].cloneNode(true));
    caption.textContent = cells[current].dataset.caption;
  };
  range.addEventListener("input", () => show(Number(range.value) - 1));
  section.querySelector("button[name=back]").addEventListener("click", () => show(current - 1));
  section.querySelector("button[name=on]").addEventListener("click", () => show(current + 1));

  const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 5, PageDown: -5, Home: -Infinity, End: Infinity };
  stage.addEventListener("keydown", (event) => {
    if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    show(current + steps[event.key]);
  });

  // One notch of a wheel is one slice; the small steps of a trackpad add up to one. At either end the page scrolls on.
  let rolled = 0;
  stage.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.deltaY === 0) return;
    if (current === (event.deltaY > 0 ? cells.length - 1 : 0)) {
      rolled = 0;
      return;
    }
    event.preventDefault();
    rolled += event.deltaY * [1, 30, 300][event.deltaMode];
    if (Math.abs(rolled) < 50) return;
    show(current + Math.sign(rolled));
    rolled = 0;
  }, { passive: false });

  // A sideways drag, with mouse or finger: the whole width is the whole stack. Up and down stays the page's.
  let drag = null;
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    drag = { x: event.clientX, from: current, width: Math.max(6, stage.clientWidth / cells.length) };
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const index = drag.from + Math.round((event.clientX - drag.x) / drag.width);
    if (index !== current) show(index);
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => { drag = null; });
  stage.addEventListener("dragstart", (event) => event.preventDefault());

  cells.forEach((cell, index) => cell.addEventListener("click", () => {
    show(index);
    viewer.scrollIntoView({ block: "start" });
    stage.focus({ preventScroll: true });
  }));
  for (const [name, box] of [["no-outline", "outline"], ["no-heat", "heat"]]) {
    const input = section.querySelector(`input[name=${box}]`);
    if (!input) continue;
    const apply = () => section.classList.toggle(name, !input.checked);
    input.addEventListener("change", apply);
    apply();
  }
  viewer.hidden = false;
  section.classList.add("live");
  show(current);
})();
