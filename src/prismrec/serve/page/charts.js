// What the time line and the map share: one ECharts instance each, in the page's colours, as large as its place.

import { computed } from "./elements.js";

/** A chart in `root` that `draw` gives options for, again whenever size or colours change; `chosen` gets a point's datum. */
export function chart(root, draw, chosen) {
  const made = echarts.init(root, null, { renderer: "canvas" });
  made.on("click", (event) => event.data.item && chosen(event.data.item));
  const again = () => made.setOption({ ...frame(), ...draw() }, { replaceMerge: ["series"] });
  new ResizeObserver(() => made.resize()).observe(root);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  return {
    again,
    change: (series) => made.setOption({ series }), // those of these ids; the others stay
    emphasise: (name) => made.dispatchAction({ type: "highlight", seriesName: name }),
    calm: () => made.dispatchAction({ type: "downplay" }),
  };
}

export const axis = (more) => ({
  axisLine: { lineStyle: { color: computed("--line") } },
  axisLabel: { color: computed("--quiet") },
  splitLine: { show: false },
  ...more,
});

function frame() {
  return {
    animation: !matchMedia("(prefers-reduced-motion: reduce)").matches,
    animationDuration: 300,
    textStyle: { color: computed("--text"), fontFamily: "system-ui, sans-serif" },
    tooltip: {
      renderMode: "richText", confine: true, backgroundColor: computed("--card"), borderColor: computed("--line"),
      textStyle: { color: computed("--text") }, formatter: (point) => point.data.words ?? "",
    },
  };
}
