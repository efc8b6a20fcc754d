// The page: who is looked at, with what changes and settings, and what the server says of them.

import { find, keepKey, KeyNeeded, post } from "./ask.js";
import { drawCards, drawHistory, drawItem } from "./lists.js";
import { placeOnMap, drawMap } from "./item_map.js";
import { drawPrism } from "./prism.js";
import { searchBox } from "./search_box.js";
import { drawTimeline } from "./timeline.js";
import { categoryOf, count, element, nameOf } from "./elements.js";

const STEP = 60; // seconds between the newest event and one that is added

const at = (id) => document.getElementById(id);

const state = { user: undefined, added: [], removed: [] }; // no user yet; null is nobody known
let unchanged = null, answer = null, failed = null, asked = new AbortController(), looked = new AbortController(), drawnMap = false;

function settings() {
  return {
    k: Number(at("k").value),
    diversity: Number(at("diversity").value),
    merge: document.querySelector("input[name=merge]:checked").value,
    include_seen: at("seen").checked,
  };
}

async function refresh() {
  if (state.user === undefined) return;
  asked.abort();
  const { signal } = asked = new AbortController();
  const bare = ({ item_id, timestamp }) => ({ item_id, timestamp });
  const query = { user_id: state.user, ...settings() };
  const changes = { added: state.added.map(bare), removed: state.removed.map(bare) };
  const isChanged = state.added.length + state.removed.length > 0;
  await trying("user", async () => {
    const [before, now] = await Promise.all([
      post("explorer/user", query, signal), isChanged ? post("explorer/user", { ...query, ...changes }, signal) : null,
    ]);
    unchanged = isChanged ? before : null;
    answer = now ?? before;
    show();
  }, refresh);
}

function show() {
  const { interests, history, fallback, items } = answer;
  const who = state.user === null ? "Nobody known" : `User ${state.user}`;
  at("summary").replaceChildren(element("bdi", {}, who), ": ", fallback
    ? (items.length ? "nothing is known, so these are the most popular items." : "nothing is known, and nothing is recommended.")
    : `${count(interests.length, "interest")} in the ${count(history.length, "event")} that the model reads, ${count(items.length, "item")}.`);
  at("prism").hidden = !interests.length;
  if (interests.length) drawPrism(at("prism"), interests, history.length);
  drawCards(at("cards"), answer, unchanged, look);
  drawHistory(at("history"), answer, state, { remove, restore, look });
  at("timeline").hidden = !history.length;
  if (history.length) drawTimeline(at("timeline"), answer, look);
  at("reset").hidden = !(state.added.length + state.removed.length);
  placeOnMap({ exploration: answer });
}

function choose(user) {
  Object.assign(state, { user, added: [], removed: [] });
  const address = new URL(location);
  address.search = user === null ? "" : new URLSearchParams({ user });
  history.replaceState(null, "", address);
  refresh();
}

const same = (one) => (other) => one.item_id === other.item_id && one.timestamp === other.timestamp;

function add(item) {
  if (state.user === undefined) state.user = null;
  const times = [...(answer?.history ?? []), ...state.added, ...state.removed].map(({ timestamp }) => timestamp);
  const timestamp = times.length ? Math.max(...times) + STEP : Math.floor(Date.now() / 1000);
  state.added.push({ ...item, timestamp });
  refresh();
}

function remove(event) {
  const place = state.added.findIndex(same(event));
  if (place >= 0) state.added.splice(place, 1);
  else state.removed.push(event);
  refresh();
}

function restore(event) {
  state.removed = state.removed.filter((other) => !same(event)(other));
  refresh();
}

async function look(item) {
  looked.abort();
  const { signal } = looked = new AbortController();
  at("item").replaceChildren(element("p", { className: "quiet", role: "status" }, "Comparing it with items and users …"));
  at("item-title").focus();
  const worked = await trying("item", async () => {
    const view = await find("explorer/item", { item_id: item.item_id }, signal);
    drawItem(at("item"), view, { look, add, choose });
    placeOnMap({ item: view });
  }, () => look(item));
  if (!worked && !signal.aborted) at("item").replaceChildren();
}

async function findUsers(search, signal) {
  const { users, matching } = await find("explorer/users", { search }, signal);
  return {
    choices: users.map(({ user_id, events }) => ({ id: user_id, text: user_id, detail: count(events, "event") })),
    note: `${count(matching, "user")} found${matching > users.length ? `, the first ${users.length} shown` : ""}.`,
  };
}

async function findItems(search, signal) {
  const { items, matching } = await find("explorer/items", { search }, signal);
  return {
    choices: items.map((item) => ({ ...item, text: nameOf(item), detail: `${categoryOf(item)} · ${count(item.events, "event")}` })),
    note: `${count(matching, "item")} found${matching > items.length ? `, the ${items.length} most popular shown` : ""}.`,
  };
}

/** Do what asks the server, and say whether it worked; what goes wrong is shown until the same `task` works. */
async function trying(task, work, again) {
  try {
    await work();
    if (failed === task) at("message").replaceChildren();
    at("key").hidden = true;
    return true;
  } catch (error) {
    if (error.name !== "AbortError") {
      report(error, again);
      failed = task;
    }
    return false;
  }
}

function report(error, again) {
  if (error instanceof KeyNeeded) {
    at("key").hidden = false;
    at("message").replaceChildren(element("p", {}, error.message));
    return;
  }
  const button = element("button", { type: "button" }, "Try again");
  button.addEventListener("click", again);
  at("message").replaceChildren(element("p", {}, error.message, " ", button));
}

async function begin() {
  if (!await trying("start", loadServed, begin)) return;
  const user = new URLSearchParams(location.search).get("user");
  if (user !== null && state.user === undefined) choose(user);
  if (!drawnMap) await trying("map", loadMap, begin);
}

async function loadServed() {
  const [health, { users }] = await Promise.all([find("health", {}), find("explorer/users", { search: "" })]);
  at("served").textContent = `model ${health.model} · ${count(health.users, "user")} · ${count(health.items, "item")}`;
  at("suggested").replaceChildren("Such as ", ...users.slice(0, 6).map(({ user_id }) => {
    const button = element("button", { type: "button" }, element("bdi", {}, user_id));
    button.addEventListener("click", () => choose(user_id));
    return button;
  }));
}

async function loadMap() {
  const map = await find("explorer/map", {});
  at("map-text").textContent = `The ${count(map.item_ids.length, "item")} of most events among ${map.total.toLocaleString("en")}, on the ` +
    `plane along which their vectors differ most; it shows ${(100 * map.spread).toFixed(0)} % of their variance. Diamonds ` +
    "are interests, rings recommendations. Zoom by wheel or pinch.";
  drawMap(at("map"), at("legend"), map, look);
  drawnMap = true;
}

searchBox(at("user-search"), "Find a user", findUsers, ({ id }) => choose(id), trying);
searchBox(at("event-search"), "Add an event", findItems, add, trying);
searchBox(at("item-search"), "Find an item", findItems, look, trying);
at("nobody").addEventListener("click", () => choose(null));
at("reset").addEventListener("click", () => { Object.assign(state, { added: [], removed: [] }); refresh(); });
at("settings").addEventListener("input", () => {
  for (const name of ["k", "diversity"]) at(`${name}-shown`).textContent = at(name).value;
  refresh();
});
at("settings").addEventListener("submit", (event) => event.preventDefault());
at("key").addEventListener("submit", (event) => {
  event.preventDefault();
  keepKey(new FormData(event.target).get("key"));
  begin().then(refresh);
});
new ResizeObserver(() => { if (answer?.interests.length) drawPrism(at("prism"), answer.interests, answer.history.length); })
  .observe(at("cards"));
begin();
