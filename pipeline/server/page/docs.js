// /openapi.json made readable, without a library.

const specification = await (await fetch("/openapi.json")).json();
const make = (name, text = "", className = "") => Object.assign(document.createElement(name), { textContent: text, className });

// Text with `code` in it.
function prose(text, name = "p") {
  const made = make(name);
  text.split(/`([^`]+)`/).forEach((part, index) => made.append(index % 2 ? make("code", part) : part));
  return made;
}

function typeOf(schema = {}) {
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    return Object.assign(make("a", name), { href: `#${name}` });
  }
  const span = make("span");
  const several = schema.anyOf ?? schema.oneOf;
  if (several) several.forEach((each, index) => span.append(index ? " or " : "", typeOf(each)));
  else if (schema.prefixItems) span.append(`[${schema.prefixItems.map((each) => each.type).join(", ")}]`);
  else if (schema.type === "array") span.append("list of ", typeOf(schema.items));
  else if (schema.enum) span.append(schema.enum.join(" or "));
  else if (schema.properties) {
    span.append("{");
    Object.entries(schema.properties).forEach(([name, each], index) => span.append(index ? ", " : "", `${name}: `, typeOf(each)));
    span.append("}");
  } else if (schema.additionalProperties) span.append("name: ", typeOf(schema.additionalProperties));
  else span.append(schema.format === "binary" ? "file" : schema.type ?? schema.const ?? "anything");
  return span;
}

function table(rows) {
  const wide = make("div", "", "wide");
  const made = make("table");
  for (const cells of rows) {
    const row = made.insertRow();
    for (const cell of cells) row.insertCell().append(cell);
  }
  wide.append(made);
  return wide;
}

for (const paragraph of specification.info.description.trim().split(/\n\n+/)) document.getElementById("about").append(prose(paragraph));
document.getElementById("examples").textContent = [
  `curl -F image=@photo.jpg ${location.origin}/v1/read`,
  `curl -H 'Content-Type: image/jpeg' -H 'Accept: image/png' --data-binary @photo.jpg ${location.origin}/v1/read > read.png`,
  `curl -F images=@one.jpg -F images=@two.jpg ${location.origin}/v1/batch`,
  `curl -H 'Authorization: Bearer TOKEN' -F image=@photo.jpg ${location.origin}/v1/read   # where a token is needed`,
].join("\n");

for (const [path, methods] of Object.entries(specification.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    const section = make("section", "", "operation");
    const title = make("h3");
    title.append(make("span", method.toUpperCase(), "method"), make("code", path), make("span", operation.summary));
    section.append(title);
    if (operation.description) section.append(prose(operation.description));
    const content = Object.entries(operation.requestBody?.content ?? {});
    if (content.length) section.append(make("h3", "Takes"), table(content.map(([type, { schema }]) => [make("code", type), typeOf(schema)])));
    const answers = Object.entries(operation.responses).filter(([status]) => status !== "422" || operation.responses[status].description);
    section.append(make("h3", "Gives"), table(answers.map(([status, { description, content: kinds }]) => {
      const types = make("span");
      Object.entries(kinds ?? {}).forEach(([type, { schema }], index) => types.append(index ? ", or " : "", make("code", type), " ", schema ? typeOf(schema) : ""));
      return [status, status === "200" ? types : prose(description, "span")];
    })));
    document.getElementById("operations").append(section);
  }
}

for (const [code, { status, title, action }] of Object.entries(specification["x-problems"])) {
  const row = document.querySelector("#codes tbody").insertRow();
  row.id = code;
  row.insertCell().append(make("code", code));
  for (const text of [status, title, action]) row.insertCell().append(String(text));
}

for (const [name, schema] of Object.entries(specification.components.schemas)) {
  if (!schema.properties) continue;
  const title = make("h3", name);
  title.id = name;
  document.getElementById("schemas").append(title, table(Object.entries(schema.properties).map(
    ([field, each]) => [make("code", field), typeOf(each), each.description ?? ""],
  )));
}
