// A field that finds as one types: a combobox with a list (ARIA Authoring Practices), for users and for items.

import { element } from "./elements.js";

const PAUSE = 120; // ms without a key before the server is asked

/** Fills `root`; `find` gives `{ choices: [{ id, text, detail }], note }` for a text, `choose` takes what was chosen. */
export function searchBox(root, label, find, choose, trying) {
  const list = element("ul", { id: `${root.id}-list`, role: "listbox", hidden: true, "aria-label": label });
  const field = element("input", {
    type: "search", autocomplete: "off", spellcheck: false, role: "combobox",
    "aria-expanded": "false", "aria-controls": list.id, "aria-autocomplete": "list",
  });
  const note = element("p", { className: "quiet note", role: "status" });
  root.classList.add("search");
  root.append(element("label", {}, label, field), list, note);

  let choices = [], found = null, marked = -1, asked = new AbortController(), timer;

  function close() {
    list.hidden = true;
    found = null;
    marked = -1;
    field.setAttribute("aria-expanded", "false");
    field.removeAttribute("aria-activedescendant");
    note.textContent = "";
  }

  function mark(place) {
    list.children[marked]?.setAttribute("aria-selected", "false");
    marked = (place + choices.length) % choices.length;
    const option = list.children[marked];
    option.setAttribute("aria-selected", "true");
    option.scrollIntoView({ block: "nearest" });
    field.setAttribute("aria-activedescendant", option.id);
  }

  function take(choice) {
    asked.abort();
    close();
    field.value = "";
    choose(choice);
  }

  async function enter() {
    if (found !== field.value) await search();
    if (found === field.value && choices.length) take(choices[Math.max(marked, 0)]);
  }

  function show(answer) {
    choices = answer.choices;
    marked = -1;
    list.replaceChildren(...choices.map((choice, place) => {
      const option = element("li", { id: `${list.id}-${place}`, role: "option", "aria-selected": "false" },
        element("bdi", {}, choice.text), " ", element("small", {}, choice.detail));
      option.addEventListener("mousedown", (event) => { event.preventDefault(); take(choice); });
      return option;
    }));
    list.hidden = !choices.length;
    field.setAttribute("aria-expanded", String(!list.hidden));
    field.removeAttribute("aria-activedescendant");
    note.textContent = choices.length ? answer.note : "Nothing found.";
  }

  async function search() {
    clearTimeout(timer);
    asked.abort();
    asked = new AbortController();
    const text = field.value;
    const { signal } = asked;
    await trying("search", async () => {
      show(await find(text.trim(), signal));
      found = text;
    }, search);
  }

  field.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, PAUSE); });
  field.addEventListener("focus", search);
  field.addEventListener("blur", () => { clearTimeout(timer); asked.abort(); close(); });
  field.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // the key is the input method's
    if (event.key === "Escape") close();
    else if (event.key === "Enter") enter();
    else if (event.key === "ArrowDown" && choices.length && !list.hidden) mark(marked + 1);
    else if (event.key === "ArrowUp" && choices.length && !list.hidden) mark(Math.max(marked, 0) - 1);
    else if (event.key === "ArrowDown") search();
    else return;
    event.preventDefault();
  });
}
