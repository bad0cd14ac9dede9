"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const element = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const nearest = (list, distance) => {
    let best = -1;
    let minimum = Infinity;
    list.forEach((item, position) => {
      const value = distance(item);
      if (value < minimum) [best, minimum] = [position, value];
    });
    return [best, minimum];
  };

  // A tooltip for the point under the pointer or selected with the arrow keys.
  const addTooltip = (svg, count, find, show) => {
    const guide = element("g", { class: "guide" });
    svg.append(guide);
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.setAttribute("role", "status");
    tip.hidden = true;
    svg.parentNode.append(tip);
    const { width, height } = svg.viewBox.baseVal;
    let at = -1;
    const hide = () => {
      guide.replaceChildren();
      tip.hidden = true;
    };
    const go = (to) => {
      at = to;
      const [x, y, text, ...marks] = show(at);
      guide.replaceChildren(...marks);
      tip.textContent = text;
      tip.hidden = false;
      const share = Math.min(Math.max(x / width, 0.16), 0.84);
      tip.style.left = `${100 * share}%`;
      tip.style.top = `${(100 * y) / height}%`;
      tip.classList.toggle("low", y < height * 0.25);
    };
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const scale = width / box.width;
      const found = find((event.clientX - box.left) * scale, (event.clientY - box.top) * scale);
      if (found < 0) hide();
      else go(found);
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("keydown", (event) => {
      const step = event.shiftKey ? 10 : 1;
      const to = {
        ArrowRight: at + step, ArrowDown: at + step, ArrowLeft: at - step, ArrowUp: at - step,
        Home: 0, End: count - 1,
      }[event.key];
      if (event.key === "Escape") hide();
      if (to === undefined) return;
      event.preventDefault();
      go(Math.min(Math.max(to, 0), count - 1));
    });
    return { go, hide };
  };

  // A tooltip for the mark nearest to the pointer. A mark is its coordinates and what its text says.
  const addMarkTooltip = (svg, marks, text) => {
    const find = (x, y) => {
      const [index, distance] = nearest(marks, (mark) => Math.hypot(mark[0] - x, mark[1] - y));
      return distance < 12 ? index : -1;
    };
    return addTooltip(svg, marks.length, find, (at) => {
      const [x, y, ...values] = marks[at];
      return [x, y, text(...values), element("circle", { cx: x, cy: y, r: 7 })];
    });
  };

  for (const svg of document.querySelectorAll("svg[data-chart]")) {
    const { lines, dots, top, bottom } = data.charts[svg.dataset.chart];
    if (dots.length > 0) {
      addMarkTooltip(svg, dots, (text) => text);
      continue;
    }
    const longest = lines.reduce((a, b) => (b.points.length > a.points.length ? b : a), { points: [] }).points;
    if (longest.length === 0) continue;
    addTooltip(svg, longest.length, (x) => nearest(longest, (point) => Math.abs(point[0] - x))[0], (at) => {
      const x = longest[at][0];
      const marks = [element("path", { d: `M${x} ${top}V${bottom}` })];
      const texts = [];
      let high = bottom;
      for (const { label, points } of lines) {
        // The value at this x. A line that has ended has none.
        const index = points.findLastIndex((other) => other[0] <= x + 0.5);
        if (index < 0 || points.at(-1)[0] < x - 0.5) continue;
        const y = points[index][1];
        high = Math.min(high, y);
        marks.push(element("circle", { cx: x, cy: y, r: 3.5 }));
        texts.push(lines.length > 1 ? `${label}: ${points[index][3]}` : points[index][3]);
      }
      return [x, high, `${texts.join("\n")}\nat ${longest[at][2]}`, ...marks];
    });
  }

  let highlight = null;
  for (const svg of document.querySelectorAll("svg[data-map]")) {
    const marks = data.marks;
    if (marks.length === 0) continue;
    const text = (item, score, iteration) => `item ${item}\nscore ${score}\niteration ${iteration}`;
    const map = addMarkTooltip(svg, marks, text);
    const indices = new Map(marks.map((mark, index) => [String(mark[2]), index]));
    highlight = (item) => (indices.has(item) ? map.go(indices.get(item)) : map.hide());
  }

  const table = document.getElementById("items");
  if (table) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    const value = (row, column) => {
      const cell = row.cells[column];
      // A drawing may precede the text.
      const text = cell.lastChild?.textContent ?? "";
      const number = cell.dataset.n ?? text;
      return number === "" || Number.isNaN(Number(number)) ? text : Number(number);
    };
    const compare = (a, b) => {
      if (typeof a === "number" && typeof b === "number") return a - b;
      return String(a).localeCompare(String(b), "en", { numeric: true });
    };
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const descending = head.ariaSort === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.ariaSort = descending ? "descending" : "ascending";
        const keyed = rows.map((row) => [value(row, column), row]);
        // Empty cells come last in both directions.
        const absent = (key) => (key === "" ? 1 : 0);
        keyed.sort(([a], [b]) => absent(a) - absent(b) || (descending ? compare(b, a) : compare(a, b)));
        body.append(...keyed.map(([, row]) => row));
      });
    });

    const texts = rows.map((row) => row.textContent.toLowerCase());
    const filter = document.getElementById("filter");
    const shown = document.getElementById("shown");
    const apply = () => {
      const wanted = filter.value.toLowerCase();
      let count = 0;
      rows.forEach((row, position) => {
        row.hidden = !texts[position].includes(wanted);
        if (!row.hidden) count += 1;
      });
      shown.textContent = `${count} of ${rows.length} rows`;
    };
    filter.addEventListener("input", apply);
    filter.closest("p").hidden = false;
    apply();

    const item = heads.findIndex((head) => head.textContent === "db_idx");
    body.addEventListener("pointerover", (event) => {
      const row = event.target.closest("tr");
      if (highlight && row) highlight(row.cells[item].textContent);
    });
  }

  // Structures are drawn when they become visible or the page is printed.
  const cells = [...document.querySelectorAll("td.smiles")];
  if (cells.length > 0 && window.SmilesDrawer) {
    const colors = { C: "ink", H: "ink", O: "oxygen", N: "nitrogen", S: "sulphur", P: "sulphur", F: "halogen", CL: "halogen", BR: "halogen", I: "halogen", B: "sulphur", SI: "sulphur", FOREGROUND: "ink", BACKGROUND: "paper" };
    const page = Object.fromEntries(Object.entries(colors).map(([atom, name]) => [atom, `var(--${name})`]));
    const options = { width: 180, height: 120, padding: 4, bondThickness: 0.9, compactDrawing: false, themes: { page } };
    const drawn = new WeakSet();
    const draw = (cell) => {
      if (drawn.has(cell)) return;
      drawn.add(cell);
      const svg = element("svg", { width: 180, height: 120, "aria-hidden": "true" });
      try {
        window.SmilesDrawer.parse(cell.textContent, (tree) => {
          new window.SmilesDrawer.SvgDrawer(options).draw(tree, svg, "page");
          cell.prepend(svg);
          // As large as possible, but at a common maximum scale for small molecules.
          const { x, y, width, height } = svg.getBBox();
          const size = Math.max(width + 8, (height + 8) * 1.5, 120);
          svg.setAttribute("viewBox", [x + (width - size) / 2, y + (height - size / 1.5) / 2, size, size / 1.5].join(" "));
        }, () => {});
      } catch {
        // Not a molecule: the text stays.
      }
    };
    const observer = new IntersectionObserver((seen) => {
      for (const { isIntersecting, target } of seen) if (isIntersecting) draw(target);
    }, { rootMargin: "200px" });
    cells.forEach((cell) => observer.observe(cell));
    window.addEventListener("beforeprint", () => cells.forEach(draw));
  }
})();
