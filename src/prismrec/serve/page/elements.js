// Builds what is shown. Text from the catalogue becomes text and nothing else, in whatever direction it is written.

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export const nameOf = (item) => String(item.title ?? item.item_id);

export const categoryOf = (item) => [item.category ?? []].flat().join(", ");

export const isolated = (text) => element("bdi", {}, String(text));

export const percent = (share) => `${(100 * share).toFixed(share < 0.095 ? 1 : 0)} %`;

export const day = (seconds) => new Date(1000 * seconds).toISOString().slice(0, 10);

export const count = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;

/** The name of an interest's colour. */
export const beam = (interest) => `--beam-${interest % 8}`;

export const colour = (interest) => `var(${beam(interest)})`;

export const computed = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
