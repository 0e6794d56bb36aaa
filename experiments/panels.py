"""Plots of the studies, as SVG. Needs nothing beyond Python."""

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 300, 52, 12, 30, 44


class Panel:
    """One plot: x and y are (lowest, highest); `place` counts panels from the left."""

    def __init__(self, place, title, *, x, y, x_label, y_label):
        self.x, self.y, self.offset, self.parts = x, y, place * WIDTH, []
        self.text(self.offset + LEFT, 18, title, size=13)
        self.text(self.offset + (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_label, anchor="middle")
        middle = (TOP + HEIGHT - BOTTOM) / 2
        turn = f' transform="rotate(-90 {self.offset + 12} {middle})"'
        self.text(self.offset + 12, middle, y_label, anchor="middle", more=turn)

    def at(self, x, y):
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            round(self.offset + LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
        )

    def text(self, x, y, words, *, size=11, anchor="start", colour="#333", more=""):
        self.parts.append(f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{more}>{words}</text>')

    def ticks(self, of_x, of_y):
        """of_x, of_y: {value: label}."""
        for value, label in of_y.items():
            (left, height), (right, _) = self.at(self.x[0], value), self.at(self.x[1], value)
            self.parts.append(f'<path d="M{left} {height}H{right}" stroke="#e3e3e3"/>')
            self.text(left - 5, height + 4, label, anchor="end")
        for value, label in of_x.items():
            x, bottom = self.at(value, self.y[0])
            self.text(x, bottom + 15, label, anchor="middle")

    def line(self, points, colour, *, dashed=False, width=1.8, opacity=1):
        path = "M" + "L".join("{} {}".format(*self.at(*point)) for point in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" opacity="{opacity}"{dash}/>')

    def bar(self, x, low, high, colour):
        (across, bottom), (_, top) = self.at(x, low), self.at(x, high)
        self.parts.append(f'<path d="M{across} {bottom}V{top}" stroke="{colour}" stroke-width="1.5"/>')

    def key(self, rows, *, top=TOP + 12, left=LEFT + 10):
        """rows: (label, colour, dashed)."""
        for row, (label, colour, dashed) in enumerate(rows):
            y, x = top + 15 * row, self.offset + left
            dash = ' stroke-dasharray="5 4"' if dashed else ""
            self.parts.append(f'<path d="M{x} {y - 4}h22" stroke="{colour}" stroke-width="2"{dash}/>')
            self.text(x + 28, y, label)


def svg(panels, path):
    size = f'width="{WIDTH * len(panels)}" height="{HEIGHT}" viewBox="0 0 {WIDTH * len(panels)} {HEIGHT}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    path.write_text("\n".join([*lines, *(part for panel in panels for part in panel.parts), "</svg>", ""]), encoding="utf-8")
