// The map: popular items coloured by category, and on them what was recommended, one item, and the user's interests.

import { chart } from "./charts.js";
import { beam, computed, element, nameOf } from "./elements.js";

const COLOURS = 8;

let chartOfItems, items, groups, shown = { interests: [], items: [] }, chosen = null;

/** Draw the answer of `/explorer/map`; `choose` gets the item that is clicked. */
export function drawMap(root, legend, map, choose) {
  items = map;
  const first = map.categories.map((category) => String([category ?? []].flat()[0] ?? "none"));
  const counts = new Map();
  for (const name of first) counts.set(name, (counts.get(name) ?? 0) + 1);
  const largest = [...counts].sort((a, b) => b[1] - a[1]).slice(0, COLOURS).map(([name]) => name);
  groups = [...largest, "other"].map((name) => ({ name, places: [] }));
  first.forEach((name, place) => groups[(largest.indexOf(name) + groups.length) % groups.length].places.push(place));
  groups = groups.filter(({ places }) => places.length);
  chartOfItems ??= chart(root, options, choose);
  root.setAttribute("aria-label", `Map of ${items.item_ids.length} items and the interests of the user.`);
  legend.replaceChildren(...groups.map(({ name, places }, group) => {
    const button = element("button", { type: "button" },
      element("span", { className: `swatch category-${group}`, "aria-hidden": "true" }), element("bdi", {}, name), ` ${places.length}`);
    for (const begin of ["mouseenter", "focus"]) button.addEventListener(begin, () => chartOfItems.emphasise(name));
    for (const end of ["mouseleave", "blur"]) button.addEventListener(end, () => chartOfItems.calm());
    return element("li", {}, button);
  }));
  chartOfItems.again();
}

/** Put a user's interests and recommendations on the map, and the item that is looked at. */
export function placeOnMap({ exploration, item }) {
  if (exploration) shown = exploration;
  if (item !== undefined) chosen = item;
  chartOfItems?.change(placed());
}

function options() {
  const hidden = { show: false, min: -1.05, max: 1.05, type: "value" };
  return {
    grid: { left: 4, right: 4, top: 4, bottom: 4 },
    xAxis: hidden,
    yAxis: hidden,
    dataZoom: [{ type: "inside", xAxisIndex: 0, filterMode: "none" }, { type: "inside", yAxisIndex: 0, filterMode: "none" }],
    series: [...plain(), ...placed()],
  };
}

/** The items, a series for each category. */
function plain() {
  return groups.map(({ name, places }, group) => ({
    type: "scatter", id: `category ${group}`, name, symbolSize: 4,
    itemStyle: { color: computed(`--category-${group}`), opacity: 0.55 },
    emphasis: { itemStyle: { opacity: 1 }, focus: "series", blurScope: "coordinateSystem" },
    data: places.map((place) => ({
      value: items.positions[place],
      words: `${items.titles[place] ?? items.item_ids[place]}\n${[items.categories[place] ?? ""].flat().join(", ")}`,
      item: { item_id: items.item_ids[place], title: items.titles[place] },
    })),
  }));
}

/** What lies on them: what was recommended, the item looked at, and the interests. */
function placed() {
  const tint = ({ interest }) => computed(interest === null ? "--quiet" : beam(interest));
  const found = {
    type: "scatter", id: "recommended", symbolSize: 10, z: 3,
    data: shown.items.map((item) => ({
      value: item.position, item, words: `${item.rank}. ${nameOf(item)}`,
      itemStyle: { color: tint(item), borderColor: computed("--page"), borderWidth: 1.5 },
    })),
  };
  const interests = {
    type: "scatter", id: "interests", symbol: "diamond", symbolSize: 30, z: 5,
    label: { show: true, color: computed("--on-beam"), fontWeight: "bold", formatter: ({ data }) => data.number },
    data: shown.interests.map((interest) => ({
      value: interest.position, number: String(interest.interest + 1), words: `Interest ${interest.interest + 1}`,
      itemStyle: { color: tint(interest), borderColor: computed("--page"), borderWidth: 2 },
    })),
  };
  const looked = {
    type: "scatter", id: "item", symbol: "circle", symbolSize: 20, z: 4, silent: true,
    itemStyle: { color: "transparent", borderColor: computed("--text"), borderWidth: 3 },
    data: chosen ? [{ value: chosen.position }] : [],
  };
  return [found, looked, interests];
}
