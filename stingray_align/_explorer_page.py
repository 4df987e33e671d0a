"""How the explorer is laid out in the browser: a map, a sentence, a list, and what is known."""

import html
import io
import socket

import holoviews as hv
import matplotlib
import pandas as pd
import panel as pn
from bokeh.models import HoverTool

from .explorer import card_html

__all__ = ["Page", "serve"]

hv.extension("bokeh")
pn.extension("tabulator")

_MARKERS = {"o": "circle", "s": "square", "D": "diamond", "v": "inverted_triangle", "*": "star",
            "P": "plus", "X": "hex"}  # of matplotlib's figure, in bokeh's words
_SIZES = {"star": 8, "plus": 7, "diamond": 8}
_HEIGHT = 670  # of the map, in pixels
_EXAMPLES = ("eclipses every few hours", "heavily absorbed, flat spectrum, steady",
             "bursts with a fast rise")
_CSS = """
h1 {font-size: 20px; margin: 0; display: inline} h3 {margin: 0 0 4px} h4 {margin: 12px 0 4px}
p {margin: 4px 0 8px; line-height: 1.45} .small {color: #444}
.facts {display: grid; grid-template-columns: auto 1fr auto 1fr; gap: 3px 12px; margin: 0}
.facts dt {color: #444} .facts dd {margin: 0} .problem {color: #a02000}
"""
_SMALL_BUTTON = ".bk-btn {font-size: 12px; padding: 3px 8px}"
_WELCOME = """<h3>How to look around</h3>
<p><b>Ask</b>: type what kind of source you look for and press Enter. The sentence is rewritten into
the terms of the catalogue, and the sources that match it best light up on the map.</p>
<p><b>Click</b> a point of the map, or a row of a list, to read what is known of that source: its
facts, its summary, its figure if its photons are at hand, and its nearest neighbours.</p>
<p><b>The map</b> is a flat projection (two principal components) of the shared space, in which
photons and sentences are compared. Sources that are close in the space are close here; the reverse
need not hold. Scroll to zoom, drag to move, click a kind in the legend to fade it.</p>"""


class Page:
    """The explorer as one visitor sees it.

    Parameters
    ----------
    explorer : Explorer
    """

    def __init__(self, explorer):
        self.explorer = explorer
        self.sentence = pn.widgets.TextInput(
            placeholder="Describe a source in a sentence, and press Enter",
            sizing_mode="stretch_width", margin=(0, 8, 0, 0))
        self.sentence.param.watch(self._asked, "value")
        self.understood = _markup("")
        self.answers = pn.Column(sizing_mode="stretch_width", visible=False)
        self.about = pn.Column(_markup(_WELCOME), sizing_mode="stretch_width")
        self._lit, self._chosen = hv.streams.Pipe(data=[]), hv.streams.Pipe(data=[])

    # -- what happens -------------------------------------------------------------------------

    def ask(self, sentence):
        """Put a sentence into the box, and answer it."""
        self.sentence.value = sentence

    def _asked(self, event):
        if not event.new.strip():
            return self.answered([], "")
        try:
            answer = self.explorer.ask(event.new)
        except (ImportError, OSError, ValueError) as error:
            return self.answered([], _problem(error))
        _remember(q=event.new)
        note = html.escape(answer.understood)
        self.answered(answer.rows, f"<b>Understood as</b> {note}", answer)

    def answered(self, rows, note, answer=None):
        """Light up rows of the catalogue and list them."""
        self.understood.object = note
        self._lit.send(list(rows))
        self.answers[:] = [] if answer is None else [
            _heading("Sources that match best"), self._listing(answer)]
        self.answers.visible = answer is not None

    def show(self, row):
        """What is known of one source of the catalogue."""
        card = self.explorer.card(row)
        _remember(source=card.name)
        self._chosen.send([self.explorer.places[row]])
        try:
            embedding = self.explorer.embedding(row)
            figure = _markup(self._no_photons(card)) if embedding is None else _png(
                _light_curve_and_spectrum(embedding))
        except (OSError, ValueError) as error:
            figure = _markup(_problem(error))
        self.about[:] = [
            _heading(card.name), figure, _markup(card_html(card)),
            _heading("Nearest neighbours, by their photons"), self._listing(card.neighbours)]

    def _no_photons(self, card):
        if self.explorer.events is None:
            return ("<p class='small'>Its photons are not here, so that there is no light curve: "
                    "give their folder with <code>--events FOLDER</code>.</p>")
        return (f"<p class='small'>No event file of {html.escape(card.name)} in "
                f"{html.escape(str(self.explorer.events))}.</p>")

    def show_reading(self, *_):
        """The observation from outside the catalogue."""
        reading = self.explorer.reading
        self._chosen.send([self.explorer.reading_place()])
        self.about[:] = [_heading(reading.name), _png(reading.plot()),
                         _markup(reading._repr_html_())]

    def _tapped(self, x, y):
        row = None if x is None else self.explorer.at(x, y)
        if row is not None:
            self.show(row)

    # -- how it looks -------------------------------------------------------------------------

    def _listing(self, answer):
        frame = pd.DataFrame(self.explorer.listing(answer))
        rows = answer.rows.tolist()
        table = pn.widgets.Tabulator(
            frame, show_index=False, disabled=True, selectable=False, layout="fit_columns",
            widths={"rank": 44, "match": 64, "name": 140, "counts": 80, "instrument": 100},
            height=min(300, 32 + 27 * len(frame)), sizing_mode="stretch_width",
            theme="simple",
            configuration={"rowHeight": 26, "columnDefaults": {"headerSort": False}},
            text_align={"rank": "right", "match": "right", "counts": "right"},
            titles={"counts": "photons", "rank": "#"}, stylesheets=[".tabulator {font-size: 12px}"])
        table.on_click(lambda event: self.show(rows[event.row]))
        return table

    def map(self):
        """The sources, those that are lit, and the one that is chosen."""
        explorer = self.explorer
        places, layers = explorer.places, []
        for kind, (colour, marker) in explorer.kinds.items():
            rows = explorer.drawn[explorer.kind[explorer.drawn] == kind]
            if not len(rows):
                continue
            columns = {"x": places[rows, 0], "y": places[rows, 1],
                       **{"photons" if name == "counts" else name: values for name, values
                          in explorer.describe(rows).items()}}
            others = [name for name in columns if name not in "xy"]
            marker = _MARKERS[marker]
            layers.append(hv.Points(pd.DataFrame(columns), ["x", "y"], others, label=kind).opts(
                color=colour, marker=marker, size=_SIZES.get(marker, 5), alpha=0.55,
                line_width=0, muted_alpha=0.03, tools=[_hover(others)]))
        tap = hv.streams.Tap(source=layers[0])
        tap.add_subscriber(self._tapped)
        lit = hv.DynamicMap(self._draw_lit, streams=[self._lit])
        chosen = hv.DynamicMap(self._draw_chosen, streams=[self._chosen])
        return (hv.Overlay(layers) * lit * chosen).opts(hv.opts.Overlay(
            responsive=True, height=_HEIGHT, xaxis="bare", yaxis="bare", legend_position="bottom",
            legend_cols=4, active_tools=["pan", "wheel_zoom"], toolbar="above", show_frame=True,
            hooks=[_plain_frame],
            legend_opts={"label_text_font_size": "10pt", "glyph_width": 22, "glyph_height": 22}))

    def _draw_lit(self, data):
        frame = pd.DataFrame({"x": [float(self.explorer.places[row, 0]) for row in data],
                              "y": [float(self.explorer.places[row, 1]) for row in data],
                              "rank": [str(i + 1) for i in range(len(data))]})
        rings = hv.Points(frame, ["x", "y"]).opts(
            color="#F0E442", line_color="black", line_width=2, size=15, alpha=0.95)
        numbers = hv.Labels(frame, ["x", "y"], "rank").opts(
            text_font_size="8pt", text_color="black", text_font_style="bold")
        return rings * numbers

    def _draw_chosen(self, data):
        return hv.Points([tuple(map(float, place)) for place in data]).opts(
            size=28, fill_alpha=0, line_color="black", line_width=4)

    def layout(self):
        """Everything on one page, two columns."""
        explorer = self.explorer
        catalogue = explorer.catalogue
        examples = []
        for text in _EXAMPLES:
            button = pn.widgets.Button(name=text, margin=(0, 6, 4, 0), stylesheets=[_SMALL_BUTTON])
            button.on_click(lambda event, text=text: self.ask(text))
            examples.append(button)
        about = f"{len(catalogue)} {'simulated ' * explorer.simulated}sources"
        if catalogue.classes:
            about += f" of {len(catalogue.classes)} classes"
        if len(explorer.drawn) < len(catalogue):
            about += f", {len(explorer.drawn)} of them drawn"
        left = pn.Column(
            _markup(f"<h1>stingray-align</h1>&ensp;<span class='small'>{about}</span>"),
            self.sentence, pn.FlexBox(*examples, margin=(4, 0, 0, 0)), self.understood,
            pn.pane.HoloViews(self.map(), sizing_mode="stretch_width", linked_axes=False),
            sizing_mode="stretch_width", min_width=560)
        right = pn.Column(self.answers, self.about, scroll=True, sizing_mode="stretch_width",
                          min_width=520, height=860, margin=(0, 0, 0, 16))
        if explorer.reading is not None:
            button = pn.widgets.Button(name=f"Show {explorer.reading.name}",
                                       button_type="primary", margin=(0, 0, 4, 0),
                                       stylesheets=[_SMALL_BUTTON])
            button.on_click(self.show_reading)
            left[2].append(button)
            self.show_reading()
        return pn.Row(left, right, sizing_mode="stretch_width", margin=12)


def _markup(text):
    return pn.pane.HTML(text, sizing_mode="stretch_width", stylesheets=[_CSS], margin=(2, 0))


def _heading(text):
    return _markup(f"<h3>{html.escape(text)}</h3>")


def _problem(error):
    return f"<p class='problem'>{html.escape(' '.join(str(error).split()))}</p>"


def _hover(names):
    return HoverTool(tooltips=[(name, f"@{{{name}}}") for name in names])


def _plain_frame(plot, element):
    """No dark axes where there is nothing to read off, and no maker's mark in the toolbar."""
    plot.state.xaxis.visible = plot.state.yaxis.visible = False
    plot.state.toolbar.logo = None


def _png(figure):
    """A figure of matplotlib as a pane; the figure is closed."""
    from matplotlib import pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return pn.pane.PNG(buffer.getvalue(), sizing_mode="scale_width", max_width=640)


def _light_curve_and_spectrum(embedding):
    from matplotlib import pyplot as plt

    from .alignment._figure import _FONT, _spectrum

    with plt.rc_context(_FONT):
        figure, (curve, spectrum) = plt.subplots(
            1, 2, figsize=(9.5, 3.4), layout="constrained", width_ratios=(1.6, 1))
        embedding.plot(curve)
        _spectrum(spectrum, embedding)
    return figure


def _remember(**query):
    """Keep what is shown in the address, so that a link leads back to it."""
    if pn.state.location is not None:
        pn.state.location.update_query(**query)


def serve(explorer, *, port, address, show):
    """Do the work of `Explorer.serve`."""
    matplotlib.use("agg")  # figures are sent to the page, not to windows

    def page():
        page = Page(explorer)
        layout = page.layout()
        asked = {key: values[0].decode() for key, values in pn.state.session_args.items()}
        if "q" in asked:
            page.ask(asked["q"])
        if "source" in asked:
            try:
                page.show(explorer.row(asked["source"]))
            except ValueError as error:
                page.about.insert(0, _markup(_problem(error)))
        return layout

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        socket.create_server((address, port), family=family).close()
    except OSError as error:
        raise OSError(f"cannot listen on port {port} of {address} ({error}): choose another "
                      "with --port") from error
    hosts = {address, "localhost", "127.0.0.1", socket.gethostname()}
    server = pn.io.server.get_server(
        page, port=port, address=address, show=show, title="stingray-align",
        websocket_origin=[f"{host}:{port}" for host in sorted(hosts)])
    print(f"Explorer: http://{address}:{port} (Ctrl-C ends it)", flush=True)
    server.start()
    server.io_loop.start()  # until Ctrl-C
    server.stop()
    raise KeyboardInterrupt
