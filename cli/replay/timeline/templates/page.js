"use strict";
const lanes = document.getElementById("lanes");
const lines = () => [...document.querySelectorAll("#timeline summary")].filter((line) => line.offsetParent !== null);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
  const all = lines();
  const at = all.indexOf(document.activeElement);
  if (step === undefined || (at < 0 && event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  const next = all[Math.min(Math.max(at + step, 0), all.length - 1)];
  if (next) next.focus();
});
document.addEventListener("focusin", (event) => {
  const place = event.target.dataset && event.target.dataset.place;
  if (place !== undefined) lanes.style.setProperty("--cursor", place);
});
