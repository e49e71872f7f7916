// Shows /v1/openapi.json, and asks what it describes. No library, so that it works offline.
"use strict";

const element = (name, attributes, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

/** Which routes belong together; what is in none comes last. */
const GROUPS = [
  ["Results", ["/v1/streams", "/v1/keys", "/v1/latest", "/v1/bars", "/v1/arrow"]],
  ["Subscriptions", ["/v1/ws", "/v1/sse"]],
  ["Alerts", ["/v1/alerts", "/v1/alerts/{id}", "/v1/alerts/{id}/ack", "/v1/alerts/{id}/false-positive", "/v1/alerts/{id}/suppress",
    "/v1/alerts/quiets", "/v1/alerts/quiets/{number}/lift", "/v1/traffic"]],
  ["The server", ["/v1/status", "/v1/health", "/v1/ready", "/metrics"]],
];
/** Routes whose answers end and are text. */
const ASKED = /^\/(v1\/(streams|keys|latest|bars|status|health|ready|alerts|traffic)|metrics)$/;
/** Most of an answer that is shown. */
const SHOWN_MAX = 20_000;

const anchor = (path) => "of" + path.replace(/\W+/g, "-");
const named = (ref) => ref.split("/").pop();

const schemaText = (schema) => {
  if (!schema) return "";
  if (schema.$ref) return named(schema.$ref);
  if (schema.oneOf) return schema.oneOf.map(schemaText).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.items) return schemaText(schema.items) + "[]" + (Array.isArray(schema.type) ? " | null" : "");
  const type = [].concat(schema.type || "any").join(" | ");
  const range = schema.minimum === undefined ? "" : ` ${schema.minimum} to ${schema.maximum}`;
  return type + range + (schema.default === undefined ? "" : ` = ${schema.default}`);
};

const shape = (schema, depth = 0) => {
  const indent = "  ".repeat(depth + 1);
  if (schema.oneOf) {
    const all = schema.oneOf.map((one) => shape(one, depth));
    return all.join(all.some((one) => one.includes("\n")) ? "\n" + "  ".repeat(depth) + "| " : " | ");
  }
  if (schema.items && schema.items.properties) return "[" + shape(schema.items, depth) + "]";
  if (!schema.properties) return schemaText(schema);
  const only = Object.entries(schema.properties);
  if (only.length === 1 && !only[0][1].description && !only[0][1].properties) {
    return `{ ${only[0][0]}: ${shape(only[0][1], depth)} }`;
  }
  const lines = Object.entries(schema.properties).map(([name, of]) => {
    const optional = (schema.required || []).includes(name) ? "" : "?";
    const note = of.description ? "  // " + of.description : "";
    return `${indent}${name}${optional}: ${shape(of, depth + 1)}${note}`;
  });
  return "{\n" + lines.join("\n") + "\n" + "  ".repeat(depth) + "}";
};

const parameters = (list) => {
  const row = (one) =>
    element("tr", {},
      element("td", {}, element("code", {}, one.name), ...(one.required ? [element("span", { class: "must" }, "needed")] : [])),
      element("td", {}, element("span", { class: "type" }, schemaText(one.schema))),
      element("td", {}, one.description));
  return element("div", { class: "scroll" }, element("h3", {}, "Parameters"), element("table", {}, ...list.map(row)));
};

const answers = (responses) => {
  const row = ([status, answer]) => {
    const [type, content] = Object.entries(answer.content || {})[0] || ["", {}];
    const tone = status < 300 ? "good" : "other";
    const of = content.schema && content.schema.$ref ? named(content.schema.$ref) : type;
    return element("tr", {},
      element("td", {}, element("code", { class: `status ${tone}` }, status)),
      element("td", {}, element("span", { class: "type" }, of)),
      element("td", {}, answer.description));
  };
  return element("div", { class: "scroll" }, element("h3", {}, "Answers"), element("table", {}, ...Object.entries(responses).map(row)));
};

/** Values that make sense on this server for parameters that are needed. */
const examples = {};

const question = (path, of) => {
  const needed = (of.parameters || []).filter((one) => one.required);
  const query = needed.map((one) => `${one.name}=${encodeURIComponent(examples[one.name] || "")}`).join("&");
  return query ? `${path}?${query}` : path;
};

const asking = (path, of) => {
  const field = element("input", { "aria-label": `Address to ask of ${path}`, spellcheck: "false", autocomplete: "off" });
  const answer = element("output", {});
  const form = element("form", { class: "try" }, field, element("button", {}, "Ask"), answer);
  field.value = question(path, of);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const lines = [];
    try {
      const url = new URL(field.value, location.origin);
      if (url.origin !== location.origin) throw new Error("only this server is asked");
      const response = await fetch(url);
      const text = await response.text();
      lines.push(`${response.status} ${response.statusText}`);
      const json = (response.headers.get("content-type") || "").startsWith("application/json");
      lines.push(json ? JSON.stringify(JSON.parse(text), null, 2) : text);
    } catch (error) {
      lines.push(String(error));
    }
    const text = lines.join("\n");
    const cut = text.length > SHOWN_MAX ? text.slice(0, SHOWN_MAX) + `\n… ${text.length - SHOWN_MAX} more characters` : text;
    answer.replaceChildren(element("pre", {}, cut));
  });
  return element("div", {}, element("h3", {}, "Ask this server"), form);
};

const operation = (path, method, of) => {
  const head = element("summary", {},
    element("span", { class: "verb" }, method.toUpperCase()),
    element("span", { class: "path" }, path),
    element("span", { class: "what" }, of.summary));
  const inside = element("div", { class: "inside" });
  if (of.description) inside.append(element("p", {}, of.description));
  if (of.parameters && of.parameters.length) inside.append(parameters(of.parameters));
  const good = of.responses["200"] && Object.values(of.responses["200"].content || {})[0];
  if (good && good.schema && good.schema.properties) {
    inside.append(element("div", {}, element("h3", {}, "Shape of the answer"), element("pre", {}, shape(good.schema))));
  }
  inside.append(answers(of.responses));
  if (ASKED.test(path)) inside.append(asking(path, of));
  return element("section", { id: anchor(path) }, element("details", {}, head, inside));
};

const shapeSection = (name, schema) => {
  const head = element("summary", {},
    element("span", { class: "path" }, name),
    element("span", { class: "what" }, schema.description || ""));
  const inside = element("div", { class: "inside" }, element("pre", {}, shape(schema)));
  return element("section", { id: anchor("/" + name) }, element("details", {}, head, inside));
};

/** Opens what the address points at, and marks it in the list. */
const follow = () => {
  const target = document.getElementById(location.hash.slice(1));
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === location.hash && location.hash) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  if (!target) return;
  const details = target.querySelector("details");
  if (details) details.open = true;
  target.scrollIntoView();
};

const show = (api) => {
  const routes = document.getElementById("routes");
  const main = document.getElementById("api");
  main.replaceChildren(
    element("h1", {}, "Tidegate API"),
    element("p", { class: "lead" }, api.info.description),
    element("p", { class: "lead" }, "As a document: ", element("a", { href: "/v1/openapi.json" }, "/v1/openapi.json"), ". ",
      element("a", { href: "/" }, "The dashboard"), "."));
  const left = new Map(Object.entries(api.paths));
  const groups = GROUPS.map(([title, paths]) => [title, paths.filter((path) => left.has(path))]);
  groups.push(["Other", [...left.keys()].filter((path) => !GROUPS.some(([, paths]) => paths.includes(path)))]);
  for (const [title, paths] of groups) {
    if (!paths.length) continue;
    const links = element("div", {}, element("h2", {}, title));
    main.append(element("h2", { class: "group" }, title));
    for (const path of paths) {
      links.append(element("a", { href: "#" + anchor(path) }, path));
      for (const [method, of] of Object.entries(left.get(path))) main.append(operation(path, method, of));
    }
    routes.append(links);
  }
  const links = element("div", {}, element("h2", {}, "Shapes"));
  main.append(element("h2", { class: "group" }, "Shapes"));
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    links.append(element("a", { href: "#" + anchor("/" + name) }, name));
    main.append(shapeSection(name, schema));
  }
  routes.append(links);
  addEventListener("hashchange", follow);
  follow();
};

const read = async (path) => {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
};

(async () => {
  const api = await read("/v1/openapi.json");
  try {
    const { streams } = await read("/v1/streams");
    examples.stream = streams[0].name;
    const { keys } = await read(`/v1/keys?limit=1&stream=${encodeURIComponent(examples.stream)}`);
    examples.key = keys.length ? keys[0].name : "";
  } catch {
    // Without results the fields stay empty.
  }
  show(api);
})().catch((error) => {
  document.getElementById("api").append(element("p", {}, `The description could not be shown: ${error.message}`));
});
