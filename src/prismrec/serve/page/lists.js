// Everything that is shown as lists: a card for each interest, the past, and one item with what is like it.

import { categoryOf, colour, count, day, element, isolated, nameOf, percent } from "./elements.js";
import { laneOf } from "./timeline.js";

const FORMED = 5; // events shown of each interest

function button(label, act, name) {
  const made = element("button", { type: "button", className: "link", ...(name && { "aria-label": name }) }, label);
  made.addEventListener("click", act);
  return made;
}

const item = (shown, look) => button(element("bdi", {}, nameOf(shown)), () => look(shown));

/** An interest's number in its colour. */
function number(interest) {
  const made = element("span", { className: "number" }, element("span", { className: "unseen" }, "Interest "), String(interest + 1));
  made.style.setProperty("--beam", colour(interest));
  return made;
}

const small = (text) => element("small", {}, isolated(text));

const row = (shown, look, detail) => element("li", {}, item(shown, look), " ", small(detail));

/** Cards of interests with the items that each found; `before` is the answer without changes, null if there are none. */
export function drawCards(root, { interests, items, history }, before, look) {
  const ranks = before && new Map(before.items.map(({ item_id, rank }) => [item_id, rank]));
  const cards = interests.map((interest, place) => card(interest, place, items, history, ranks, look));
  const nobodys = items.filter((found) => found.interest === null);
  if (nobodys.length) {
    cards.push(element("article", { className: "card" }, element("h3", {}, "Most popular"), found(nobodys, ranks, look)));
  }
  root.replaceChildren(...cards);
}

function card(interest, place, items, history, ranks, look) {
  const name = interest.categories.map(({ category }) => String(category)).join(" · ");
  const formed = history
    .filter((event) => event.weights[place] > 0)
    .sort((one, other) => other.weights[place] - one.weights[place])
    .slice(0, FORMED);
  const own = items.filter((each) => each.interest === interest.interest);
  const made = element("article", { className: "card" },
    element("h3", {}, number(interest.interest), element("bdi", {}, name || "No category")),
    element("p", { className: "quiet" }, `${percent(interest.share)} of the attention`),
    element("h4", {}, "Formed by"),
    element("ol", { className: "plain" }, ...formed.map((event) => row(event, look, percent(event.weights[place])))),
    element("h4", {}, "Leads to"),
    ...(own.length ? [found(own, ranks, look)] : [
      element("p", { className: "quiet" }, `None of the ${items.length} items; closest to it are`),
      element("ol", { className: "plain" }, ...interest.closest.map((each) => row(each, look, categoryOf(each)))),
    ]));
  made.style.setProperty("--beam", colour(interest.interest));
  return made;
}

function found(items, ranks, look) {
  return element("ol", { className: "ranked" }, ...items.map((each) =>
    element("li", { value: each.rank }, item(each, look), " ", ...movement(each, ranks), small(categoryOf(each)))));
}

function movement({ item_id, rank }, ranks) {
  if (!ranks) return [];
  const before = ranks.get(item_id);
  if (before === rank) return [];
  const [className, text] = before === undefined ? ["new", "new"] : before > rank ? ["up", `▲ ${before - rank}`] : ["down", `▼ ${rank - before}`];
  return [element("span", { className: `moved ${className}` }, text), " "];
}

/** The past, newest first, with what was added and removed. */
export function drawHistory(root, { interests, history }, state, { remove, restore, look }) {
  const added = new Set(state.added.map(({ item_id, timestamp }) => `${timestamp} ${item_id}`));
  const gone = state.removed.map((event) => element("li", { className: "gone" },
    element("time", {}, day(event.timestamp)), element("span", {}, item(event, look), " ", small(categoryOf(event))),
    button("Put back", () => restore(event), `Put back ${nameOf(event)}`)));
  const there = history.map((event) => {
    const lane = interests[laneOf(event, interests)];
    const isAdded = added.has(`${event.timestamp} ${event.item_id}`);
    return element("li", {}, element("time", {}, day(event.timestamp)), lane ? number(lane.interest) : "",
      element("span", {}, item(event, look), " ", isAdded ? element("span", { className: "moved new" }, "added ") : "", small(categoryOf(event))),
      button("Remove", () => remove(event), `Remove ${nameOf(event)}`));
  });
  root.replaceChildren(...gone, ...there);
}

/** One item: what it is, what is like it, and whose interests come closest. */
export function drawItem(root, view, { look, add, choose }) {
  const { item: shown, neighbours, fans, looked_at: looked, users } = view;
  const compared = `${looked === users ? "all" : `${looked.toLocaleString("en")} of`} ${count(users, "user")}`;
  root.replaceChildren(
    element("h3", {}, element("bdi", {}, nameOf(shown))),
    element("p", { className: "quiet" }, isolated(shown.item_id), " · ", isolated(categoryOf(shown) || "no category"), ` · ${count(shown.events, "event")}`),
    button("Add to the past", () => add(shown)),
    element("div", { className: "columns" },
      element("div", {}, element("h4", {}, "Most like it"),
        element("ol", { className: "plain" }, ...neighbours.map((each) =>
          row(each, look, `cosine ${each.cosine.toFixed(2)} · ${categoryOf(each)}`)))),
      element("div", {}, element("h4", {}, "Whose interests come closest"),
        element("p", { className: "quiet" }, `Of ${compared}.`),
        element("ol", { className: "plain" }, ...fans.map((fan) => {
          const user = button(element("bdi", {}, fan.user_id), () => choose(fan.user_id), `User ${fan.user_id}`);
          return element("li", {}, user, " ", number(fan.interest), small(`${fan.score.toFixed(2)}${fan.had ? " · has had it" : ""}`));
        })))));
}
