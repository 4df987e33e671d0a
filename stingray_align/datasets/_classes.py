"""The physical classes of the simulated population: a table of ranges, with references.

Ranges are ``(low, high)`` and drawn log-uniformly if both are positive, else uniformly. Times are
in s, temperatures and cut-offs in keV, columns in 1e22 cm-2. They span what the references report
for the class as a whole; no single object is meant.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CLASSES", "Shape", "SourceClass"]


@dataclass(frozen=True)
class Shape:
    """One way in which a class varies.

    Parameters
    ----------
    kind : str
        Name of the time shape; the column ``time_shape`` of the truth table.
    weight : float
        Share of the class that varies this way.
    period : tuple
        Of periodic shapes, or recurrence of repeated events.
    amplitude : tuple
        Fractional amplitude of sinusoids and pulsations, depth of eclipses, covered fraction of
        dips, peak over the steady flux for events, factor of change for trends and steps.
    width : tuple
        Length of an eclipse, dip or eruption as a fraction of the period.
    rise, decay : tuple
        Of events; ``decay`` is also the e-folding time of trends and the width of steps.
    events : float
        Mean number of events in a window beyond the first; if 0 there is just one. Bursts use
        ``period`` as their mean waiting time instead.
    colour : tuple
        How the modulation depends on energy: above 0, hard photons vary more than soft ones.
    noise : tuple
        Standard deviation of the logarithm of aperiodic noise on top of everything, for a window
        of 50 ks.
    spot : bool
        The cycle is that of one accreting pole, in sight or not, instead of rounded pulses.
    """

    kind: str
    weight: float = 1.0
    period: tuple | None = None
    amplitude: tuple | None = None
    width: tuple | None = None
    rise: tuple | None = None
    decay: tuple | None = None
    events: float = 0.0
    colour: tuple = (0.0, 0.0)
    noise: tuple | None = None
    spot: bool = False


@dataclass(frozen=True)
class SourceClass:
    """A physical class: spectrum, absorption, time behaviour and where the ranges come from.

    Parameters
    ----------
    name : str
    spectrum : str
        "power law", "blackbody", "disc", "plasma", or two of them joined by " + ".
    reference : str
        Source of the ranges.
    shapes : tuple of Shape
    n_h : tuple
        Column of neutral gas.
    photon_index, cutoff, kt, abundance : tuple
        Parameters of the spectrum, where it has them.
    mix : tuple
        Photons (0.5-8 keV, unabsorbed) of the second spectral component over those of the first.
    scattered : tuple
        Unabsorbed fraction of the flux, for buried sources.
    iron_line : tuple
        Equivalent width of neutral iron K alpha (keV).
    event_spectrum : str
        Spectrum of flares, bursts or eruptions; empty for that of the steady emission.
    event_kt : tuple
        Its temperature.
    dip_n_h : tuple
        Column added to what is covered during dips.
    """

    name: str
    spectrum: str
    reference: str
    shapes: tuple
    n_h: tuple
    photon_index: tuple | None = None
    cutoff: tuple | None = None
    kt: tuple | None = None
    abundance: tuple | None = None
    mix: tuple | None = None
    scattered: tuple | None = None
    iron_line: tuple | None = None
    event_spectrum: str = ""
    event_kt: tuple | None = None
    dip_n_h: tuple | None = None


_CLASSES = (
    SourceClass(
        "unobscured AGN", "power law",
        "Gonzalez-Martin & Vaughan 2012, A&A 544, A80; Ueda et al. 2014, ApJ 786, 104",
        (Shape("red noise", 0.7, noise=(0.1, 0.6), colour=(-0.3, 0.05)),
         Shape("constant", 0.3)),
        n_h=(0.01, 0.3), photon_index=(1.6, 2.3)),
    SourceClass(
        "obscured AGN", "power law",
        "Risaliti et al. 1999, ApJ 522, 157; Brightman & Nandra 2011, MNRAS 413, 1206",
        (Shape("constant", 0.6), Shape("red noise", 0.4, noise=(0.08, 0.4), colour=(0.0, 0.3))),
        n_h=(2.0, 100.0), photon_index=(1.5, 2.1), scattered=(0.003, 0.05),
        iron_line=(0.05, 0.8)),
    SourceClass(
        "quasar with soft excess", "power law + blackbody",
        "Gierlinski & Done 2004, MNRAS 349, L7; Bianchi et al. 2009, A&A 495, 421",
        (Shape("red noise", 0.6, noise=(0.08, 0.5), colour=(-0.2, 0.2)),
         Shape("constant", 0.4)),
        n_h=(0.01, 0.06), photon_index=(1.8, 2.5), kt=(0.08, 0.2), mix=(0.3, 3.0)),
    SourceClass(
        "tidal disruption event", "disc", "Saxton et al. 2020, SSRv 216, 85",
        (Shape("constant", 0.35), Shape("red noise", 0.3, noise=(0.1, 0.6)),
         Shape("trend", 0.35, decay=(2e4, 4e5), noise=(0.03, 0.2))),
        n_h=(0.01, 0.3), kt=(0.05, 0.17)),
    SourceClass(
        "quasi-periodic eruptions", "disc",
        "Miniutti et al. 2019, Nature 573, 381; Arcodia et al. 2021, Nature 592, 704",
        (Shape("eruptions", period=(8e3, 7e4), amplitude=(5.0, 80.0), width=(0.08, 0.25)),),
        n_h=(0.01, 0.1), kt=(0.05, 0.09), event_spectrum="blackbody", event_kt=(0.1, 0.22)),
    SourceClass(
        "HMXB pulsar", "power law",
        "White, Swank & Holt 1983, ApJ 270, 711; Sidoli & Paizis 2018, MNRAS 481, 2779",
        (Shape("pulsations", 0.7, period=(2.0, 8e3), amplitude=(0.2, 0.8), colour=(0.0, 0.3),
               noise=(0.05, 0.3)),
         Shape("eclipses", 0.1, period=(1.3e5, 5e5), amplitude=(0.95, 1.0), width=(0.1, 0.25),
               noise=(0.1, 0.3)),
         Shape("flares", 0.2, amplitude=(5.0, 100.0), rise=(50.0, 1e3), decay=(200.0, 5e3),
               events=3.0, noise=(0.1, 0.4))),
        n_h=(0.2, 20.0), photon_index=(0.4, 1.4), cutoff=(6.0, 25.0), iron_line=(0.02, 0.3)),
    SourceClass(
        "LMXB with type I bursts", "power law + blackbody",
        "Galloway et al. 2008, ApJS 179, 360",
        (Shape("bursts", period=(4e3, 3e4), amplitude=(8.0, 200.0), rise=(0.5, 5.0),
               decay=(5.0, 100.0), noise=(0.03, 0.15)),),
        n_h=(0.05, 3.0), photon_index=(1.6, 2.3), kt=(0.5, 1.5), mix=(0.1, 0.8),
        event_spectrum="blackbody", event_kt=(1.5, 2.8)),
    SourceClass(
        "dipping LMXB", "power law + blackbody",
        "Boirin et al. 2005, A&A 436, 195; Diaz Trigo et al. 2006, A&A 445, 179",
        (Shape("dips", period=(3e3, 4e4), amplitude=(0.7, 1.0), width=(0.08, 0.35),
               noise=(0.03, 0.2)),),
        n_h=(0.1, 2.0), photon_index=(1.5, 2.2), cutoff=(8.0, 40.0), kt=(0.8, 2.0),
        mix=(0.1, 0.6), dip_n_h=(4.0, 80.0)),
    SourceClass(
        "black-hole transient", "disc + power law",
        "Remillard & McClintock 2006, ARA&A 44, 49",
        (Shape("red noise", 0.5, noise=(0.1, 0.45), colour=(0.0, 0.4)),
         Shape("trend", 0.2, decay=(2e4, 3e5), noise=(0.05, 0.2)),
         Shape("state change", 0.3, amplitude=(0.15, 5.0), decay=(300.0, 8e3),
               colour=(0.2, 0.8), noise=(0.05, 0.2))),
        n_h=(0.1, 3.0), photon_index=(1.5, 2.6), kt=(0.2, 1.2), mix=(0.2, 3.0)),
    SourceClass(
        "steady ULX", "disc + power law",
        "Sutton, Roberts & Middleton 2013, MNRAS 435, 1758; Kaaret et al. 2017, ARA&A 55, 303",
        (Shape("constant", 0.75), Shape("red noise", 0.25, noise=(0.05, 0.2),
                                        colour=(0.0, 0.4))),
        n_h=(0.05, 0.7), photon_index=(1.6, 2.6), kt=(0.12, 0.45), mix=(0.4, 4.0)),
    SourceClass(
        "eclipsing ULX", "disc + power law",
        "Urquhart & Soria 2016, ApJ 831, 56; Qiu et al. 2019, ApJ 877, 57",
        (Shape("eclipses", period=(2e4, 2.5e5), amplitude=(0.9, 1.0), width=(0.1, 0.3),
               noise=(0.05, 0.2)),),
        n_h=(0.05, 1.0), photon_index=(1.6, 2.6), kt=(0.15, 0.6), mix=(0.4, 4.0)),
    SourceClass(
        "pulsating ULX", "power law",
        "Bachetti et al. 2014, Nature 514, 202; Israel et al. 2017, Science 355, 817",
        (Shape("pulsations", period=(0.4, 150.0), amplitude=(0.1, 0.6), colour=(0.1, 0.5),
               noise=(0.03, 0.2)),),
        n_h=(0.05, 1.0), photon_index=(0.7, 1.6), cutoff=(4.0, 12.0)),
    SourceClass(
        "heartbeat ULX", "disc",
        "Motta et al. 2020, ApJ 898, 174; Belloni et al. 2000, A&A 355, 271",
        (Shape("heartbeat", period=(300.0, 8e3), amplitude=(1.0, 6.0), colour=(0.1, 0.6),
               noise=(0.05, 0.2)),),
        n_h=(0.05, 1.0), kt=(0.6, 2.0)),
    SourceClass(
        "polar", "plasma + blackbody",
        "Cropper 1990, SSRv 54, 195; Ramsay & Cropper 2004, MNRAS 347, 497",
        (Shape("pulsations", 0.7, period=(4.8e3, 1.5e4), amplitude=(0.6, 1.0),
               colour=(-0.2, 0.2), noise=(0.1, 0.3), spot=True),
         Shape("eclipses", 0.3, period=(4.8e3, 1.5e4), amplitude=(0.95, 1.0), width=(0.03, 0.12),
               noise=(0.1, 0.3), spot=True)),
        n_h=(0.005, 0.2), kt=(5.0, 30.0), abundance=(0.3, 1.2), mix=(0.05, 3.0)),
    SourceClass(
        "intermediate polar", "plasma",
        "Patterson 1994, PASP 106, 209; Mukai 2017, PASP 129, 062001",
        (Shape("pulsations", period=(200.0, 5e3), amplitude=(0.1, 0.7), colour=(-0.7, -0.1),
               noise=(0.05, 0.2)),),
        n_h=(0.3, 10.0), kt=(8.0, 40.0), abundance=(0.3, 1.2), scattered=(0.02, 0.3),
        iron_line=(0.05, 0.2)),
    SourceClass(
        "dwarf nova", "plasma", "Baskill et al. 2005, MNRAS 357, 626; Mukai 2017",
        (Shape("red noise", 0.5, noise=(0.15, 0.5)),
         Shape("eclipses", 0.25, period=(4.8e3, 1.5e4), amplitude=(0.85, 1.0),
               width=(0.03, 0.1), noise=(0.1, 0.3)),
         Shape("constant", 0.15),
         Shape("trend", 0.1, decay=(1e4, 1e5), noise=(0.1, 0.3))),
        n_h=(0.01, 0.1), kt=(2.0, 10.0), abundance=(0.4, 1.5)),
    SourceClass(
        "supersoft source", "blackbody",
        "Kahabka & van den Heuvel 1997, ARA&A 35, 69; Greiner 2000, NewA 5, 137",
        (Shape("constant", 0.5), Shape("red noise", 0.25, noise=(0.1, 0.5)),
         Shape("sinusoid", 0.25, period=(1e4, 1e5), amplitude=(0.15, 0.6), noise=(0.03, 0.1))),
        n_h=(0.01, 0.15), kt=(0.03, 0.1)),
    SourceClass(
        "flaring young star", "plasma",
        "Getman et al. 2005, ApJS 160, 319; Favata et al. 2005, ApJS 160, 469",
        (Shape("flares", amplitude=(3.0, 60.0), rise=(200.0, 3e3), decay=(1.5e3, 2.5e4),
               events=0.7, noise=(0.03, 0.15)),),
        n_h=(0.1, 4.0), kt=(0.8, 3.0), abundance=(0.2, 0.6), event_spectrum="plasma",
        event_kt=(3.0, 10.0)),
    SourceClass(
        "coronal star", "plasma", "Guedel 2004, A&ARv 12, 71",
        (Shape("constant", 0.45),
         Shape("flares", 0.4, amplitude=(1.5, 8.0), rise=(60.0, 1e3), decay=(300.0, 8e3),
               events=1.0, noise=(0.03, 0.15)),
         Shape("red noise", 0.15, noise=(0.08, 0.25))),
        n_h=(0.001, 0.05), kt=(0.2, 1.1), abundance=(0.2, 1.0), event_spectrum="plasma",
        event_kt=(1.0, 4.0)),
    SourceClass(
        "massive star wind", "plasma",
        "Berghoefer et al. 1997, A&A 322, 167; Naze 2009, A&A 506, 1055",
        (Shape("constant", 0.75),
         Shape("sinusoid", 0.25, period=(5e4, 5e5), amplitude=(0.05, 0.25))),
        n_h=(0.2, 1.5), kt=(0.25, 0.8), abundance=(0.5, 1.2)),
    SourceClass(
        "colliding-wind binary", "plasma",
        "Stevens, Blondin & Pollock 1992, ApJ 386, 265; Pittard & Parkin 2010, MNRAS 403, 1657",
        (Shape("constant", 0.4), Shape("trend", 0.35, decay=(5e4, 5e5)),
         Shape("sinusoid", 0.25, period=(1.2e5, 5e5), amplitude=(0.15, 0.5),
               colour=(-0.5, 0.0))),
        n_h=(0.4, 5.0), kt=(1.0, 4.0), abundance=(0.5, 1.5), iron_line=(0.0, 0.1)),
    SourceClass(
        "supernova remnant knot", "plasma", "Vink 2012, A&ARv 20, 49",
        (Shape("constant"),),
        n_h=(0.05, 2.0), kt=(0.3, 2.0), abundance=(1.0, 6.0)),
    SourceClass(
        "thermally emitting neutron star", "blackbody",
        "Haberl 2007, Ap&SS 308, 181; De Luca 2017, JPhCS 932, 012006",
        (Shape("constant", 0.6),
         Shape("pulsations", 0.4, period=(3.0, 12.0), amplitude=(0.02, 0.3))),
        n_h=(0.005, 1.2), kt=(0.06, 0.5)),
    SourceClass(
        "magnetar with bursts", "blackbody + power law",
        "Israel et al. 2008, ApJ 685, 1114; Olausen & Kaspi 2014, ApJS 212, 6",
        (Shape("bursts", 0.8, period=(3e2, 2e4), amplitude=(100.0, 2e4), rise=(0.01, 0.05),
               decay=(0.05, 2.0)),
         Shape("pulsations", 0.2, period=(2.0, 12.0), amplitude=(0.1, 0.7))),
        n_h=(0.3, 4.0), photon_index=(2.0, 4.0), kt=(0.3, 0.7), mix=(0.2, 2.0),
        event_spectrum="blackbody", event_kt=(2.0, 6.0)),
    SourceClass(
        "gamma-ray pulsar", "power law + blackbody",
        "Abdo et al. 2013, ApJS 208, 17; Roberts et al. 2014, AN 335, 313",
        (Shape("pulsations", 0.35, period=(0.002, 0.5), amplitude=(0.2, 0.9)),
         Shape("constant", 0.3),
         Shape("sinusoid", 0.35, period=(1e4, 9e4), amplitude=(0.2, 0.7))),
        n_h=(0.01, 0.6), photon_index=(1.0, 2.0), kt=(0.08, 0.25), mix=(0.01, 0.6)),
    SourceClass(
        "fast X-ray transient", "power law",
        "Bauer et al. 2017, MNRAS 467, 4841; Quirola-Vasquez et al. 2022, A&A 663, A168",
        (Shape("transient", 0.6, amplitude=(200.0, 1e4), decay=(200.0, 4e3)),
         Shape("flares", 0.4, amplitude=(200.0, 1e4), rise=(20.0, 400.0), decay=(100.0, 4e3))),
        n_h=(0.02, 1.5), photon_index=(1.4, 2.6)),
    SourceClass(
        "cluster core", "plasma", "Cavagnolo et al. 2009, ApJS 182, 12",
        (Shape("constant"),),
        n_h=(0.01, 0.2), kt=(1.5, 9.0), abundance=(0.3, 0.8)),
    SourceClass(
        "background only", "", "de Luca & Molendi 2004, A&A 419, 837 (soft-proton flares)",
        (Shape("constant", 0.7),
         Shape("flares", 0.3, amplitude=(2.0, 30.0), rise=(100.0, 2e3), decay=(300.0, 8e3),
               events=2.0)),
        n_h=()),
)

#: The classes by name, in a fixed order.
CLASSES = {entry.name: entry for entry in _CLASSES}
