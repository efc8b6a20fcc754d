// The time line: each event at its time, in the lane of the interest that it formed most.

import { axis, chart } from "./charts.js";
import { beam, categoryOf, computed, day, nameOf } from "./elements.js";

let line, shown = { interests: [], history: [] };

/** Draw what `/explorer/user` answered; `choose` gets the event that is clicked. */
export function drawTimeline(root, exploration, choose) {
  shown = exploration;
  line ??= chart(root, options, choose);
  root.setAttribute("aria-label", `Time line of ${shown.history.length} events; the list below says the same.`);
  line.again();
}

/** Place of the interest that an event gave most to, among those shown; -1 if there is none. */
export function laneOf(event, interests) {
  const given = interests.map(({ share }, place) => share * event.weights[place]);
  return given.indexOf(Math.max(...given));
}

function options() {
  const names = shown.interests.map(({ interest }) => `Interest ${interest + 1}`);
  const colours = shown.interests.map(({ interest }) => computed(beam(interest)));
  const heaviest = Math.max(1e-9, ...shown.history.flatMap((event) => event.weights));
  const data = shown.history.map((event) => {
    const lane = laneOf(event, shown.interests);
    return {
      value: [1000 * event.timestamp, Math.max(lane, 0)],
      symbolSize: 7 + 15 * Math.sqrt((event.weights[lane] ?? 0) / heaviest),
      itemStyle: { color: colours[lane] ?? computed("--quiet"), opacity: 0.75 },
      words: `${nameOf(event)}\n${categoryOf(event)}\n${day(event.timestamp)}`,
      item: event,
    };
  });
  return {
    grid: { left: 84, right: 14, top: 12, bottom: 26 },
    xAxis: axis({ type: "time" }),
    yAxis: axis({ type: "category", data: names.length ? names : [""], inverse: true, splitLine: { show: true, lineStyle: { color: computed("--faint") } } }),
    series: [{ type: "scatter", id: "events", data }],
  };
}
