// The model's card, of the Markdown that cards are written in: headings, lists, tables, paragraphs, bold, code, links.

const text = await (await fetch("model-card.md")).text();
const card = document.getElementById("card");

function inline(element, words) {
  words.split(/(\*\*.+?\*\*|`[^`]+`|\[[^\]]+\]\([^)\s]+\))/).forEach((part) => {
    const link = part.match(/^\[([^\]]+)\]\(([^)\s]+)\)$/);
    if (part.startsWith("**") && part.length > 4) element.append(Object.assign(document.createElement("strong"), { textContent: part.slice(2, -2) }));
    else if (part.startsWith("`") && part.length > 2) element.append(Object.assign(document.createElement("code"), { textContent: part.slice(1, -1) }));
    else if (link && /^https?:/.test(link[2])) element.append(Object.assign(document.createElement("a"), { textContent: link[1], href: link[2], rel: "noreferrer" }));
    else element.append(link ? link[1] : part);
  });
  return element;
}

function block(lines) {
  const heading = lines[0].match(/^(#{1,3}) (.*)/);
  if (heading) {
    card.append(inline(document.createElement(`h${heading[1].length}`), heading[2]));
    if (lines.length > 1) block(lines.slice(1));
  } else if (lines[0].startsWith("|")) {
    const rows = lines.map((line) => line.trim().slice(1, -1).split("|").map((cell) => cell.trim()));
    const numbers = rows[1].map((cell) => cell.endsWith(":"));
    const wide = Object.assign(document.createElement("div"), { className: "wide" });
    const table = document.createElement("table");
    rows.filter((_, index) => index !== 1).forEach((cells, index) => {
      const row = table.insertRow();
      cells.forEach((cell, column) => {
        const made = inline(document.createElement(index ? "td" : "th"), cell);
        made.classList.toggle("number", numbers[column]);
        row.append(made);
      });
    });
    wide.append(table);
    card.append(wide);
  } else if (lines[0].startsWith("- ")) {
    const list = document.createElement("ul");
    lines.join("\n").split(/\n?^- /m).filter(Boolean).forEach((item) => list.append(inline(document.createElement("li"), item)));
    card.append(list);
  } else card.append(inline(document.createElement("p"), lines.join(" ")));
}

text.trim().split(/\n\s*\n/).forEach((paragraph) => block(paragraph.split("\n")));
