/* Where the nodes of a graph stand: a column per token, a row per layer, embeddings at the bottom, logits on top. Pure: no document, no
   state. All lengths are pixels of the screen; zoom gives columns and rows more of them, so that marks and text keep their size. */

(() => {
    const drawing = ((window.cltdb = window.cltdb || {}).drawing = window.cltdb.drawing || {});

    const PITCH = 19; // from mark to mark in a cell
    const LINE = 18; // from one line of marks to the next
    const EMPTY = 15; // a column or row without features
    const LIST = 84; // a column from which on its nodes stand in lists, with labels to the right
    const ROW = 15; // with one line of marks
    const PAD = 4;
    const SMALLEST = 3.5;
    const LARGEST = 8;
    const MAX_ABREAST = 8;
    const MAX_LINES = 12;
    const LOGIT_LINES = 5;
    const FEW_LAYERS = 16; // up to which the first answers stand below each other in any case
    const MAX_TOKEN_CHARS = 14;
    const SLANT = 55;
    const SLANT_GAP = 18; // from token to token, for slanted labels of 11 pixels not to touch
    const ROOMY = 1.25; // times as much as it needs that a full column or row gets before the empty ones get more
    const UPRIGHT = 0.75; // share of the width that token labels may take to stand side by side
    const TEXT = 12; // of labels

    Object.assign(drawing, { PITCH, LINE, LIST, TEXT, MAX_TOKEN_CHARS, SLANT });

    /* data: store graph-data, as state.js keeps it (with byId). shown: Set of node ids. size: {width, height} that there is without
       scrolling. options: {zoom, open: Set of "row:position" of cells that fold nothing, must: Set of node ids that are never folded away,
       measure: text -> pixels, label: id -> text}.

       columns, rows: of each the pixel where it begins, its size and middle. cells: Map "row:position" -> {row, position, ids (all, the most
       influential first), folded (how many of them have no mark), chip: {x, y} | null}. marks: Map id -> {id, x, y, r, cell, room}, room: pixels for a label to
       the right, where the cell is a list, else null.
       angle: of the token labels, 0, SLANT or 90 degrees. */
    drawing.layout = (data, shown, size, options) => {
        const settings = { zoom: 1, open: new Set(), must: new Set(), measure: (text) => 6.2 * text.length, label: () => "", ...options };
        const cells = cellsOf(data, shown);
        for (const cell of cells.values()) cell.least = leastOf(cell, data, settings);
        const columns = columnsOf(data, cells, size.width * settings.zoom, settings);
        const rows = rowsOf(data, cells, columns, size.height * settings.zoom);
        const marks = new Map();
        const largest = largestOf(data, shown);
        for (const cell of cells.values()) arrange(cell, columns[cell.position], rows[cell.row], data, marks, largest, settings);
        return { columns, rows, cells, marks, angle: angleOf(data, columns, settings), width: whole(columns), height: whole(rows) };
    };

    /* The row of a node, counted from below: 0 embeddings, 1 + layer, logits on top. */
    drawing.rowOf = (data, i) => {
        const kind = data.nodes.kind[i];
        return kind === "embedding" ? 0 : kind === "logit" ? data.n_layers + 1 : 1 + data.nodes.layer[i];
    };

    drawing.cellOf = (data, i) => `${drawing.rowOf(data, i)}:${data.nodes.position[i] || 0}`;

    /* Pixels from the middle of a mark to its edge: its area grows with influence. */
    drawing.radius = (influence, largest) =>
        SMALLEST + (LARGEST - SMALLEST) * Math.sqrt(largest > 0 ? Math.min(1, Math.max(0, influence || 0) / largest) : 0);

    drawing.tokenText = (text) => (text.length <= MAX_TOKEN_CHARS ? text : `${text.slice(0, MAX_TOKEN_CHARS - 1)}…`);

    /* The largest influence of a feature or error that is shown: embeddings, which may have much more, are drawn as large. */
    function largestOf(data, shown) {
        let largest = 0;
        for (const id of shown) {
            const i = data.byId.get(id);
            if (["feature", "error"].includes(data.nodes.kind[i])) largest = Math.max(largest, data.nodes.influence[i] || 0);
        }
        return largest;
    }

    function cellsOf(data, shown) {
        const { influence, probability } = data.nodes;
        const weight = (id) => (influence[data.byId.get(id)] || 0) + (probability[data.byId.get(id)] || 0);
        const cells = new Map();
        for (const id of shown) {
            const i = data.byId.get(id);
            const key = drawing.cellOf(data, i);
            if (!cells.has(key)) {
                const [row, position] = key.split(":").map(Number);
                cells.set(key, { key, row, position, ids: [], folded: 0, chip: null });
            }
            cells.get(key).ids.push(id);
        }
        for (const cell of cells.values()) cell.ids.sort((a, b) => weight(b) - weight(a) || a - b);
        return cells;
    }

    /* How many marks and chips a cell has at least. */
    function leastOf(cell, data, { open, must }) {
        const n = cell.ids.length;
        if (open.has(cell.key)) return n + (n > 1 ? 1 : 0);
        const few = cell.row > data.n_layers && data.n_layers <= FEW_LAYERS ? 3 : 1;
        return Math.min(n, Math.max(few, cell.ids.filter((id) => must.has(id)).length) + 1);
    }

    function columnsOf(data, cells, total, { measure, label }) {
        const n = Math.max(data.tokens.length, 1, ...[...cells.values()].map((cell) => cell.position + 1));
        const tokens = Array.from({ length: n }, (_, i) => Math.max(EMPTY, measure(drawing.tokenText(data.tokens[i] || "")) + 2 * PAD));
        const upright = tokens.reduce((all, one) => all + one, 0) <= UPRIGHT * total;
        const bounds = tokens.map((token) => {
            const low = upright ? token : EMPTY;
            return { low, mid: low, high: Math.max(low, Math.min(token, 64)), full: false };
        });
        for (const cell of cells.values()) {
            if (cell.row === 0 && cell.ids.length < 2) continue;
            const bound = bounds[cell.position];
            const n = cell.ids.length;
            const isLogit = cell.row > data.n_layers; // logits stand in a list
            const abreast = (isLogit ? 2 : Math.min(n, MAX_ABREAST)) * PITCH + PAD;
            const widest = Math.max(...cell.ids.slice(0, MAX_LINES).map((id) => measure(label(id))));
            bound.full = true;
            bound.low = Math.max(bound.low, Math.min(cell.least, cell.least > 2 && !isLogit ? MAX_ABREAST : 2) * PITCH + PAD);
            bound.mid = Math.max(bound.mid, abreast, bound.low);
            bound.high = Math.max(bound.high, bound.mid, widest ? Math.max(LIST, widest + 2 * LARGEST + 5 * PAD) : 0);
        }
        return lengths(bounds, total);
    }

    function rowsOf(data, cells, columns, total) {
        const bounds = Array.from({ length: data.n_layers + 2 }, () => ({ low: EMPTY, mid: EMPTY, high: EMPTY, full: false }));
        for (const cell of cells.values()) {
            const bound = bounds[cell.row];
            const n = cell.ids.length;
            const isLogit = cell.row > data.n_layers;
            const lines = isLogit ? Math.min(n, LOGIT_LINES) : Math.ceil(n / abreastIn(columns[cell.position]));
            bound.full = bound.full || (cell.row > 0 && !isLogit);
            const abreast = isLogit && cell.least > 2 ? 1 : abreastIn(columns[cell.position]);
            const least = Math.ceil(cell.least / abreast);
            bound.low = Math.max(bound.low, least > 1 ? least * LINE + PAD : ROW);
            bound.mid = Math.max(bound.mid, bound.low, Math.min(lines, MAX_LINES) * LINE + PAD);
            bound.high = Math.max(bound.high, bound.mid, (isLogit ? lines : Math.min(n, MAX_LINES)) * LINE + 2 * PAD);
        }
        const rows = lengths(bounds, total);
        const height = end(rows);
        return rows.map((row) => ({ ...row, start: height - row.start - row.size, middle: height - row.middle }));
    }

    const abreastIn = (column) => Math.max(1, Math.floor((column.size - PAD + 1) / PITCH));

    /* Lengths that fill `total`: `low` at least, then all on their way to `mid`, then to `high`; what is left goes to the full ones
       up to a bound, then to all. */
    function lengths(bounds, total) {
        const sum = (name) => bounds.reduce((all, bound) => all + bound[name], 0);
        const between = (least, most) => {
            const way = (total - sum(least)) / (sum(most) - sum(least));
            return bounds.map((bound) => bound[least] + way * (bound[most] - bound[least]));
        };
        let sizes;
        if (sum("low") >= total) sizes = bounds.map((bound) => bound.low);
        else if (sum("mid") > total) sizes = between("low", "mid");
        else if (sum("high") > total) sizes = between("mid", "high");
        else {
            const most = bounds.map((bound) => bound.high * (bound.full ? ROOMY : 1));
            const way = Math.min(1, (total - sum("high")) / (most.reduce((all, one) => all + one, 0) - sum("high") || 1));
            sizes = bounds.map((bound, i) => bound.high + way * (most[i] - bound.high));
            const left = (total - sizes.reduce((all, one) => all + one, 0)) / bounds.length;
            sizes = sizes.map((size) => size + left);
        }
        let start = 0;
        return sizes.map((size) => {
            start += size;
            return { start: start - size, size, middle: start - size / 2 };
        });
    }

    const end = (lanes) => Math.max(0, ...lanes.map((lane) => lane.start + lane.size));

    /* The whole pixels that lanes take: what rounding adds to a sum of lengths makes none more, which would bring a scroll bar. */
    const whole = (lanes) => Math.ceil(end(lanes) - 0.01);

    /* The place of every mark of a cell. A wide cell lists its nodes, with room for their labels; otherwise they stand side by side in
       lines. What does not fit is folded into a chip. */
    function arrange(cell, column, row, data, marks, largest, { open, must, measure, label }) {
        const n = cell.ids.length;
        const isOpen = open.has(cell.key) && n > 1;
        const lines = Math.max(1, Math.floor((row.size - PAD + 1) / LINE));
        const [wide, isLogit] = [column.size >= LIST, cell.row > data.n_layers];
        const entry = wide ? Math.max(...cell.ids.map((id) => measure(label(id)))) + 2 * LARGEST + 2 * PAD : Infinity;
        const lists = wide ? Math.max(1, Math.floor((column.size - PAD) / entry)) : 0;
        const isList = n <= lists * lines || (wide && isLogit);
        const abreast = isLogit && lines > 1 ? 1 : abreastIn(column);
        const room = isOpen ? n : isList ? lists * lines : abreast * lines;
        const ids = n <= room ? cell.ids : unfolded(cell.ids, Math.max(1, room - 1), must);
        cell.folded = n - ids.length;
        const hasChip = cell.folded > 0 || isOpen;
        const slots = ids.length + (hasChip ? 1 : 0);
        const perLine = isList ? Math.ceil(slots / lines) : Math.ceil(slots / Math.ceil(slots / abreast));
        const used = Math.ceil(slots / perLine);
        const step = Math.min(isList ? entry : 1.5 * PITCH, (wide ? column.size - PAD : column.size) / perLine);
        const drop = Math.min(1.3 * LINE, (row.size - PAD) / used);
        const left = wide ? column.start + PAD + LARGEST : column.middle - ((perLine - 1) * step) / 2;
        const place = (slot) => ({
            x: left + (slot % perLine) * step,
            y: row.middle + (Math.floor(slot / perLine) - (used - 1) / 2) * drop,
        });
        ids.forEach((id, slot) => {
            const r = drawing.radius(data.nodes.influence[data.byId.get(id)], largest);
            const room = isList ? Math.floor(step - LARGEST - r - PAD) : null;
            marks.set(id, { id, ...place(slot), r, cell: cell.key, room });
        });
        if (hasChip) cell.chip = place(ids.length);
    }

    /* The first `n` ids and those of `must`, in their order: the latter take the places of the weakest. */
    function unfolded(ids, n, must) {
        const wanted = ids.filter((id) => must.has(id));
        const others = ids.filter((id) => !must.has(id)).slice(0, Math.max(0, n - wanted.length));
        const chosen = new Set([...wanted, ...others]);
        return ids.filter((id) => chosen.has(id));
    }

    function angleOf(data, columns, { measure }) {
        const fits = data.tokens.every((token, i) => measure(drawing.tokenText(token)) + PAD <= columns[i].size);
        if (fits) return 0;
        const anchors = columns.map(drawing.spine);
        const reach = Math.cos((SLANT * Math.PI) / 180);
        const isFree = (x, i) => (i ? x - anchors[i - 1] >= SLANT_GAP : true) && measure(drawing.tokenText(data.tokens[i] || "")) * reach <= x;
        return anchors.every(isFree) ? SLANT : 90;
    }

    /* Where the embedding and the token label of a column stand. */
    drawing.spine = (column) => (column.size >= LIST ? column.start + PAD + LARGEST : column.middle);
})();
