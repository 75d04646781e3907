// Elements, made without ever reading markup: what comes from the proxy is put in as text.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== undefined && child !== null && child !== false) element.append(child);
  }
  return element;
}

/** An element: `h("a", { href: "/" }, "home")`. */
export function h(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function s(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Sets an element's text, if it is another. */
export function say(element, text) {
  const wanted = text === undefined || text === null ? "" : String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Sets or removes an attribute, if it is another. */
export function set(element, name, value) {
  if (value === undefined || value === null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value);
  }
}

/** Makes the children of an element those of a list, moving as few as possible. */
export function arrange(parent, children) {
  let at = parent.firstChild;
  for (const child of children) {
    if (child === at) at = at.nextSibling;
    else parent.insertBefore(child, at);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

/** Tells a function whether an element is on the screen, whenever that changes. */
export function whenSeen(element, tell) {
  new IntersectionObserver((entries) => tell(entries.at(-1).isIntersecting), { rootMargin: "120px" }).observe(element);
}
