  // Tables that sort by a click on a heading, and downloads of figures.
  const make = (tag, properties = {}, ...children) => { const element = Object.assign(document.createElement(tag), properties); element.append(...children); return element; };

  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = make("button", { type: "button", textContent: heading.textContent });
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") !== "descending";
        for (const other of headings) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => { const cell = row.cells[column]; return cell.dataset.sort ?? cell.textContent; };
        const rows = [...table.tBodies[0].rows].sort((a, b) => {
          const [x, y] = [key(a), key(b)], [m, n] = [parseFloat(x), parseFloat(y)];
          const order = Number.isNaN(m) && Number.isNaN(n) ? x.localeCompare(y) : Number.isNaN(m) ? -1 : Number.isNaN(n) ? 1 : m - n;
          return down ? -order : order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }

  function save(content, type, name) {
    const address = URL.createObjectURL(new Blob([content], { type }));
    make("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  function standalone(svg) {
    const copy = svg.cloneNode(true), style = getComputedStyle(document.documentElement);
    const text = new XMLSerializer().serializeToString(copy).replace(/var\((--[a-z]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
    const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
    const rules = `text{fill:${style.getPropertyValue("--ink")};font-family:sans-serif}`;
    const head = `<svg width="${width}" height="${height}"`, paper = style.getPropertyValue("--paper").trim();
    const whole = text.replace("<svg", head).replace(/>/, `><style>${rules}</style><rect width="100%" height="100%" fill="${paper}"/>`);
    return { text: whole, width, height };
  }

  for (const button of document.querySelectorAll("button[data-save]")) {
    button.addEventListener("click", () => {
      const figure = button.closest("figure"), name = figure.dataset.name, kind = button.dataset.save;
      if (kind === "csv") { save(JSON.parse(figure.querySelector(".csv").textContent), "text/csv", `${name}.csv`); return; }
      const { text, width, height } = standalone(figure.querySelector("svg"));
      if (kind === "svg") { save(text, "image/svg+xml", `${name}.svg`); return; }
      const image = new Image(), scale = 2;
      image.onload = () => {
        const canvas = make("canvas", { width: width * scale, height: height * scale });
        canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
        canvas.toBlob((blob) => save(blob, "image/png", `${name}.png`));
      };
      image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
    });
  }
