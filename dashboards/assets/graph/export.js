/* The drawing as a file: an SVG that needs nothing beside it, or a PNG of it. */

(() => {
    const drawing = ((window.cltdb = window.cltdb || {}).drawing = window.cltdb.drawing || {});
    const svg = (...given) => drawing.svg(...given);
    const LOOKS = [
        "fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-linejoin", "opacity", "paint-order", "font-family",
        "font-size", "font-weight", "text-anchor",
    ];
    const USUAL = {
        "fill-opacity": "1", stroke: "none", "stroke-width": "1px", "stroke-dasharray": "none", "stroke-linejoin": "miter", opacity: "1",
        "paint-order": "normal", "font-weight": "400", "text-anchor": "start",
    };
    const PIXELS = 2; // of a PNG per pixel of the drawing
    const LARGEST = 16_000; // pixels that browsers draw at most, per side

    /* A copy of an element whose looks stand in its attributes; null where it is not shown. */
    function copied(element) {
        const looks = getComputedStyle(element);
        if (looks.display === "none" || element.matches(".hit, .reach")) return null;
        const copy = svg(element.tagName === "svg" ? "g" : element.tagName);
        for (const name of ["d", "x", "y", "dy", "width", "height", "rx", "r", "transform"])
            if (element.hasAttribute(name) && element.tagName !== "svg") copy.setAttribute(name, element.getAttribute(name));
        const isText = element.tagName === "text";
        for (const name of LOOKS) {
            const value = looks.getPropertyValue(name);
            const matters = element.tagName === "g" || element.tagName === "svg" ? name === "opacity" : isText || !/^font|anchor/.test(name);
            if (matters && value && value !== USUAL[name]) copy.setAttribute(name, value.replaceAll('"', "'"));
        }
        if (isText) copy.append(element.textContent);
        const title = element.getAttribute("aria-label");
        if (title && element.tagName === "g") {
            copy.append(svg("title"));
            copy.firstChild.textContent = title;
        }
        for (const child of element.children) copy.append(...[copied(child)].filter(Boolean));
        return copy;
    }

    /* The text of an SVG file of what is drawn, axes included, all of it and not only what is in view. */
    drawing.svgText = () => {
        const container = document.getElementById("graph-drawing");
        const size = (name) => {
            const part = container.querySelector(`.${name}`);
            return part ? [part.getAttribute("width"), part.getAttribute("height")].map(Number) : [0, 0];
        };
        const [[left], [width, height], [, below]] = [size("layer-axis"), size("plane"), size("token-axis")];
        const whole = { width: left + width, height: height + below };
        const { data, state } = window.cltdb.graph;
        const title = svg("title");
        title.textContent = `Attribution graph: ${data.prompt}`;
        const about = svg("desc");
        about.textContent = `Graph ${data.graph_id}; share of influence kept: nodes ${state.node_share}, edges ${state.edge_share}.`;
        const paper = getComputedStyle(container.querySelector(".drawing-scroll")).backgroundColor;
        const parts = [["plane", left, 0], ["layer-axis", 0, 0], ["token-axis", left, height]]
            .map(([name, x, y]) => [container.querySelector(`.${name}`), x, y])
            .filter(([part]) => part)
            .map(([part, x, y]) => {
                const copy = copied(part);
                copy.setAttribute("transform", `translate(${x} ${y})`);
                return copy;
            });
        const root = svg("svg", { ...whole, viewBox: `0 0 ${whole.width} ${whole.height}` }, [
            title, about, svg("rect", { ...whole, fill: paper }), ...parts,
        ]);
        return { text: new XMLSerializer().serializeToString(root), ...whole };
    };

    function download(blob, ending) {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(blob);
        link.download = `${window.cltdb.graph.data.graph_id.replace(/[^\w.-]+/g, "-")}.${ending}`;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    }

    /* Saves what is drawn as a file; both return its content. */
    const exportSvg = () => {
        const { text } = drawing.svgText();
        download(new Blob([text], { type: "image/svg+xml" }), "svg");
        return text;
    };

    const exportPng = async () => {
        const { text, width, height } = drawing.svgText();
        const image = new Image();
        image.src = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
        await image.decode();
        const scale = Math.min(PIXELS, LARGEST / width, LARGEST / height);
        const canvas = Object.assign(document.createElement("canvas"), { width: Math.ceil(width * scale), height: Math.ceil(height * scale) });
        const pen = canvas.getContext("2d");
        pen.scale(scale, scale);
        pen.drawImage(image, 0, 0);
        URL.revokeObjectURL(image.src);
        const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
        download(blob, "png");
        return blob;
    };

    Object.assign(window.cltdb.graph, { exportSvg, exportPng });
})();
