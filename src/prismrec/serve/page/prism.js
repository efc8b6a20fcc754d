// Draws the past as a beam that a prism splits into interests, each as wide as its share of the attention.

import { colour, count, percent, svg } from "./elements.js";

const HEIGHT = 170, TOP = 16, BASE = 84, HALF = 42; // of the drawing, and of the prism in it

let frame, white, words, glass, beams = [];

/** Draw the beams of `interests` ({ interest, share }) of so many events into `root`; those that stay move there. */
export function drawPrism(root, interests, events) {
  const width = root.clientWidth, middle = width / 2;
  if (!frame || beams.length !== interests.length) begin(root, interests.length);
  for (const [name, value] of [["viewBox", `0 0 ${width} ${HEIGHT}`], ["width", width]]) frame.setAttribute(name, value);
  white.setAttribute("d", `M0 96 L${middle - 22} 52 L${middle - 19} 59 L0 104 Z`);
  glass.setAttribute("d", `M${middle} ${TOP} L${middle + HALF} ${BASE} L${middle - HALF} ${BASE} Z`);
  words.textContent = count(events, "event");
  interests.forEach(({ interest, share }, place) => {
    const { light, label } = beams[place], inside = HALF - 8, column = width / interests.length;
    const start = middle + inside * (2 * (place + 0.5) / interests.length - 1), thin = Math.max(0.8, 0.9 * inside * share);
    const end = column * (place + 0.5), half = Math.max(1.5, 0.48 * column * Math.min(1, 2 * share));
    light.setAttribute("d",
      `M${start - thin} ${BASE} L${start + thin} ${BASE} L${end + half} ${HEIGHT} L${end - half} ${HEIGHT} Z`);
    light.style.fill = colour(interest);
    label.setAttribute("x", end);
    label.textContent = percent(share);
  });
}

function begin(root, length) {
  beams = Array.from({ length }, () => ({
    light: svg("path", { class: "beam" }), label: svg("text", { y: HEIGHT - 10, "text-anchor": "middle" }),
  }));
  white = svg("path", { class: "white" });
  words = svg("text", { x: 2, y: 124 });
  glass = svg("path", { class: "glass" });
  frame = svg("svg", { "aria-hidden": "true", height: HEIGHT },
    white, words, ...beams.map((beam) => beam.light), glass, ...beams.map((beam) => beam.label));
  root.replaceChildren(frame);
}
