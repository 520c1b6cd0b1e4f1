(() => {
  const root = document.documentElement;
  const asked = () => root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  try { if (localStorage.theme) root.dataset.theme = localStorage.theme; } catch { /* a file without storage */ }

  // Figures are stored in the colours of white paper; these take their place on dark paper.
  const onDark = {
    "#111": "#e4e7eb", "#222": "#e4e7eb", "#444": "#b8c0ca", "#445": "#7d8894", "#666": "#9aa4af", "#888": "#6b7683",
    "#999": "#77818d", "#bbb": "#4a525c", "#e8e8e8": "#2a2f36", "#f4f6fa": "#242a32", "#a00": "#ff8b7d",
    "#2a5d9f": "#7db0f0", "#c0562f": "#f0936b", "#5b8c5a": "#8fca8d", "#8a5a9e": "#c79adb", "#b08d2e": "#dfbd62",
    "#3f9a98": "#6fcfcc", "#6b6b6b": "#a9b0b8",
    "rgba(42,93,159,0.15)": "rgba(125,176,240,0.25)",
  };
  // Of what is named a colour alone: a token may read "#444".
  const recolour = (value, dark, name = "") => {
    if (typeof value === "string") return (dark && /color/i.test(name) && onDark[value.toLowerCase()]) || value;
    if (Array.isArray(value)) return value.map((part) => recolour(part, dark, name));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, recolour(part, dark, key)]));
    return value;
  };
  // A map's middle is the paper: white on white paper, dark on dark paper. Letters change where they do in RdBu and Blues.
  const scales = {
    signed: [[0, "#ffb199"], [0.17, "#b5533c"], [0.5, "#1d2127"], [0.85, "#3a73b5"], [1, "#a9cdf7"]],
    plain: [[0, "#1d2127"], [0.71, "#3a73b5"], [1, "#a9cdf7"]],
    grey: [[0, "#1d2127"], [1, "#6b7076"]],
  };
  // What is darkest there is lightest here, and its letters, white there, are black.
  const rescaled = (trace) => {
    if (trace.type !== "heatmap") return trace;
    const letters = trace.textfont?.color === "#fff" ? { textfont: { ...trace.textfont, color: "#111" } } : {};
    const grey = /^#(..)\1\1$/.test(trace.colorscale?.at(-1)?.[1]);
    const scale = grey ? "grey" : trace.zmid === 0 ? "signed" : "plain";
    return { ...trace, ...letters, colorscale: scales[scale] };
  };
  // A narrow place: labels side by side are turned, the title is broken into lines, and the legend goes below the plot.
  const NARROW = 560, LINE = 20, LETTER = 8.2, ENTRY = 48, SMALL = 7; // pixels
  const broken = (text, letters) => {
    const lines = [""];
    for (const word of text.replace(/<br>/g, " ").split(" ")) {
      const longer = `${lines.at(-1)} ${word}`.trim();
      if (longer.length > letters && lines.at(-1)) lines.push(word);
      else lines[lines.length - 1] = longer;
    }
    return lines;
  };
  const narrowed = (layout, data, width) => {
    const xaxis = { ...layout.xaxis, automargin: true, ...(layout.xaxis.type === "category" ? { tickangle: -45 } : {}) };
    const lines = broken(layout.title?.text || "", Math.floor((width - 24) / LETTER));
    const named = data.filter((trace) => trace.type !== "heatmap" && trace.name && trace.showlegend !== false);
    const listed = layout.showlegend ?? (named.length > 1 || named.some((trace) => trace.showlegend));
    const longest = ENTRY + SMALL * Math.max(0, ...named.map((trace) => trace.name.length));
    const rows = listed ? Math.ceil(named.length / Math.max(1, Math.floor((width - 24) / longest))) : 0;
    const margin = { ...layout.margin, t: 36 + LINE * lines.length, b: (layout.margin?.b ?? 80) + LINE * rows, r: 16 };
    const more = margin.t - (layout.margin?.t ?? 100) + LINE * rows;
    return {
      ...layout, xaxis, margin, height: (layout.height ?? 450) + Math.max(0, more),
      title: { ...layout.title, text: lines.join("<br>") },
      legend: { ...layout.legend, orientation: "h", x: 0, xanchor: "left", yref: "container", y: 0, yanchor: "bottom" },
    };
  };
  const dressed = (stored, width) => {
    const dark = asked() === "dark";
    const css = getComputedStyle(root);
    const line = css.getPropertyValue("--line").trim(), ink = css.getPropertyValue("--ink").trim();
    const layout = recolour({ ...stored.layout, width: undefined, autosize: true }, dark);
    const inside = stored.layout.plot_bgcolor;
    Object.assign(layout, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: inside ? layout.plot_bgcolor : "rgba(0,0,0,0)" });
    layout.font = { ...layout.font, color: ink };
    layout.hoverlabel = { ...layout.hoverlabel, bgcolor: css.getPropertyValue("--wash").trim(), font: { color: ink } };
    for (const name of new Set([...Object.keys(layout).filter((key) => /^[xy]axis/.test(key)), "xaxis", "yaxis"]))
      layout[name] = { gridcolor: line, linecolor: line, zerolinecolor: line, ...layout[name] };
    const bar = { bgcolor: "rgba(0,0,0,0)", color: css.getPropertyValue("--soft").trim(), activecolor: ink };
    layout.modebar = { ...bar, ...layout.modebar };
    const data = recolour(stored.data, dark);
    return { data: dark ? data.map(rescaled) : data, layout: width < NARROW ? narrowed(layout, data, width) : layout };
  };
  const figures = [...document.querySelectorAll(".plot")].map((place) => ({
    place, stored: JSON.parse(place.parentElement.querySelector("script").textContent), drawn: false,
  }));
  const draw = (figure) => {
    const { data, layout } = dressed(figure.stored, figure.place.clientWidth);
    figure.drawn = true;
    const hovers = matchMedia("(hover: hover)").matches; // without a pointer the buttons would always cover the title
    Plotly.react(figure.place, data, layout, { responsive: true, displaylogo: false, displayModeBar: hovers ? "hover" : false });
  };
  const redraw = () => figures.filter((figure) => figure.drawn).forEach(draw);
  // A page of many figures draws each when it comes near the window, and all of them for the printer.
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const figure = figures.find(({ place }) => place === entry.target);
      if (entry.isIntersecting && !figure.drawn) draw(figure);
    }
  }, { rootMargin: "1200px" });
  figures.forEach(({ place }) => near.observe(place));
  addEventListener("beforeprint", () => figures.filter((figure) => !figure.drawn).forEach(draw));

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = asked() === "dark" ? "light" : "dark";
    try { localStorage.theme = root.dataset.theme; } catch { /* a file without storage */ }
    redraw();
  });
})();
