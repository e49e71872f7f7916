// Shows /v1/openapi.json. No library, so that it works offline.
"use strict";

const element = (name, text, ...children) => {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
};

const schemaText = (schema) => {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
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
  if (schema.oneOf) return schema.oneOf.map((one) => shape(one, depth)).join("\n" + "  ".repeat(depth) + "| ");
  if (schema.items && schema.items.properties) return "[" + shape(schema.items, depth) + "]";
  if (!schema.properties) return schemaText(schema);
  const lines = Object.entries(schema.properties).map(([name, of]) => {
    const optional = (schema.required || []).includes(name) ? "" : "?";
    const note = of.description ? "  // " + of.description : "";
    return `${indent}${name}${optional}: ${shape(of, depth + 1)}${note}`;
  });
  return "{\n" + lines.join("\n") + "\n" + "  ".repeat(depth) + "}";
};

const operation = (path, method, of) => {
  const head = element("summary", "", element("h2", `${method.toUpperCase()} ${path}`), " ", element("span", of.summary));
  const details = element("details", "", head);
  if (of.description) details.append(element("p", of.description));
  if (of.parameters) {
    const rows = of.parameters.map((one) =>
      element("tr", "",
        element("td", "", element("code", one.name), one.required ? " (needed)" : ""),
        element("td", "", element("small", schemaText(one.schema))),
        element("td", one.description)));
    details.append(element("table", "", ...rows));
  }
  for (const [status, answer] of Object.entries(of.responses)) {
    const [type, content] = Object.entries(answer.content || {})[0] || ["", {}];
    details.append(element("p", "", element("code", status), ` ${answer.description} `, element("small", type)));
    if (status === "200" && content.schema) details.append(element("pre", shape(content.schema)));
  }
  return element("section", "", details);
};

fetch("/v1/openapi.json").then((answer) => answer.json()).then((api) => {
  const main = document.getElementById("api");
  main.replaceChildren(element("p", api.info.description));
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, of] of Object.entries(methods)) main.append(operation(path, method, of));
  }
  main.append(element("h3", "Shapes"));
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    const details = element("details", "", element("summary", "", element("h2", name)), element("pre", shape(schema)));
    main.append(element("section", "", details));
  }
});
