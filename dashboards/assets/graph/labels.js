/* Which labels of marks can be read: placed one after another, the most wanted first, where they cover neither a mark nor a label. Pure. */

(() => {
    const drawing = ((window.cltdb = window.cltdb || {}).drawing = window.cltdb.drawing || {});
    const BIN = 64;
    const GAP = 4;
    const SLACK = 2; // pixels of a text's box above and below its letters
    const SHORT = 9;
    const RING = 4; // around a mark that is selected, pinned, found or in a group

    /* What labels must not cover: the boxes of marks, {id, x, y, r}, and chips, {x, y}. */
    drawing.labelSpots = (marks, chips) => {
        const bins = new Map();
        for (const mark of marks) add(bins, box(mark.x - mark.r, mark.y - mark.r, 2 * mark.r, 2 * mark.r, mark.id));
        for (const chip of chips) add(bins, box(chip.x - 12, chip.y - 8, 24, 16, null));
        return bins;
    };

    /* wanted: [{id, text, ringed}] in the order of their importance. layout: of drawing.layout; spots: of its marks and chips.
       whole: Set of ids whose labels are never cut; forced: of those that may cover marks. Returns [{id, text, x, y, anchor}] with y the middle of the text. A label that does not
       fit is cut, or left out. */
    drawing.placeLabels = (wanted, { layout, spots }, measure, { whole, forced }) => {
        const labels = new Map();
        const height = drawing.TEXT + 4;
        const placed = [];
        for (const { id, text, ringed } of wanted) {
            const mark = layout.marks.get(id);
            if (!mark || !text) continue;
            for (const version of versions(text, mark, whole.has(id), measure)) {
                const inside = around(mark, ringed, measure(version), height).filter(
                    (spot) => spot.left >= 0 && spot.left + spot.width <= layout.width && spot.top >= -SLACK && spot.top + height <= layout.height + SLACK,
                );
                const near = mark.room === null ? inside : inside.slice(0, 1);
                const found =
                    near.find((spot) => isFree(labels, spot, id) && isFree(spots, spot, id))
                    || (forced.has(id) && inside.find((spot) => isFree(labels, spot, id) && isFree(spots, spot, id, true)));
                if (!found) continue;
                add(labels, { ...found, owner: null });
                placed.push({ id, text: version, x: found.x, y: found.top + height / 2, anchor: found.anchor });
                break;
            }
        }
        return placed;
    };

    /* What may stand for a text: in a list as much of it as there is room for, elsewhere all or the beginning. */
    function versions(text, { room }, whole, measure) {
        if (room === null) return text.length > SHORT + 2 && !whole ? [text, `${text.slice(0, SHORT)}…`] : [text];
        if (measure(text) <= room || whole) return [text];
        let n = text.length - 1;
        while (n > 0 && measure(`${text.slice(0, n).trimEnd()}…`) > room) n -= 1;
        return n > 2 ? [`${text.slice(0, n).trimEnd()}…`] : [];
    }

    const box = (left, top, width, height, owner) => ({ left, top, width, height, owner });

    /* To the right of a mark, to its left, above, below. */
    function around({ x, y, r: inner }, ringed, width, height) {
        const r = inner + (ringed ? RING : 0);
        const [right, left] = [x + r + GAP, x - r - GAP];
        return [
            { ...box(right, y - height / 2, width, height), x: right, anchor: "start" },
            { ...box(left - width, y - height / 2, width, height), x: left, anchor: "end" },
            { ...box(x - width / 2, y - r - 2 - height, width, height), x, anchor: "middle" },
            { ...box(x - width / 2, y + r + 2, width, height), x, anchor: "middle" },
        ];
    }

    function* binsOf({ left, top, width, height }) {
        for (let column = Math.floor(left / BIN); column <= Math.floor((left + width) / BIN); column += 1)
            for (let row = Math.floor(top / BIN); row <= Math.floor((top + height) / BIN); row += 1) yield column * 100_000 + row;
    }

    function add(bins, item) {
        for (const bin of binsOf(item)) {
            if (!bins.has(bin)) bins.set(bin, []);
            bins.get(bin).push(item);
        }
    }

    function isFree(bins, spot, id, ofLabels = false) {
        for (const bin of binsOf(spot))
            for (const other of bins.get(bin) || [])
                if (
                    other.owner !== id && !(ofLabels && other.owner !== null) && spot.left < other.left + other.width && other.left < spot.left + spot.width
                    && spot.top < other.top + other.height && other.top < spot.top + spot.height
                )
                    return false;
        return true;
    }
})();
