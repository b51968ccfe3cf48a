"""Profiles: named sets of gates.

Thresholds are placed by what bf16 does to real voices, which nobody hears, and by what planted defects do:
`transparent` leaves room for about twice bf16's damage, `8bit` is what a good 8-bit deployment keeps. Guards are the
same for both: they catch faults, not losses. docs/gates.md has the evidence, benchmarks/gates.py makes it again.
"""

from types import MappingProxyType

from precision.gates import Gate

BANDS = ("lsd_low_db", "lsd_mid_db", "lsd_high_db")
HEADS = ("text", "audio")

GUARDS = (
    Gate("finite", "worst", min=1.0),
    Gate("length_samples", "worst", max=0.0),
    Gate("lag_samples", "worst", max=0.0),
    Gate("polarity", "worst", min=1.0),
    Gate("gain_db", "worst", max=0.15),
    Gate("gain_drift_db", "worst", max=0.2),
    Gate("dc", "worst", max=0.001),
    Gate("clipping", "worst", max=0.0001),
)


def _tokens(agreement: float, kl_nats: float, worst_kl_nats: float) -> tuple[Gate, ...]:
    """Gates on the heads of models that have some; on each kind of head alike."""
    return tuple(
        gate
        for kind in HEADS
        for gate in (
            Gate(f"{kind}_agreement", "mean", min=agreement),
            Gate(f"{kind}_kl_nats", "mean", max=kl_nats),
            Gate(f"{kind}_worst_kl_nats", "worst", max=worst_kl_nats),
        )
    )


TRANSPARENT = (
    Gate("pesq_wb", "mean", min=4.40),
    Gate("pesq_wb", "worst", min=4.20),
    Gate("pesq_change", "lower_bound", min=-0.05),
    Gate("estoi", "mean", min=0.995),
    Gate("lsd_db", "mean", max=2.5),
    *(Gate(band, "mean", max=3.0) for band in BANDS),
    Gate("lsd_high_db", "worst", max=4.0),
    Gate("top_rise_db", "mean", max=3.0),
    Gate("worst_lsd_db", "worst", max=4.0),
    Gate("mcd_db", "mean", max=1.4),
    Gate("fricative_db", "mean", max=0.4),
    Gate("fricative_db", "worst", max=0.6),
    Gate("pause_excess_db", "mean", max=0.5),
    Gate("pause_excess_db", "worst", max=2.0),
    Gate("group_delay_rad", "mean", max=0.16),
    Gate("instantaneous_frequency_rad", "mean", max=0.16),
    Gate("worst_instantaneous_frequency_rad", "worst", max=0.25),
    Gate("f0_cents", "mean", max=12.0),
    Gate("f0_drift_cents", "worst", max=5.0),
    Gate("voicing_error", "mean", max=0.015),
    *GUARDS,
    *_tokens(0.95, 0.005, 0.1),
    Gate("duration_change", "mean", max=0.01),
    Gate("duration_change", "worst", max=0.02),
    Gate("f0_mean_cents", "mean", max=3.0),
    Gate("f0_mean_cents", "worst", max=8.0),
    Gate("f0_spread_cents", "mean", max=2.0),
    Gate("f0_spread_cents", "worst", max=5.0),
    Gate("voiced_share_change", "mean", max=0.006),
    Gate("voiced_share_change", "worst", max=0.015),
    Gate("dtw_mcd_db", "mean", max=1.0),
    Gate("dtw_mcd_db", "worst", max=1.4),
)

EIGHT_BIT = (
    Gate("pesq_wb", "mean", min=4.00),
    Gate("pesq_wb", "worst", min=3.75),
    Gate("pesq_change", "lower_bound", min=-0.10),
    Gate("estoi", "mean", min=0.985),
    Gate("lsd_db", "mean", max=4.0),
    *(Gate(band, "mean", max=4.5) for band in BANDS),
    Gate("lsd_high_db", "worst", max=6.0),
    Gate("top_rise_db", "mean", max=4.5),
    Gate("worst_lsd_db", "worst", max=6.0),
    Gate("mcd_db", "mean", max=2.0),
    Gate("fricative_db", "mean", max=1.0),
    Gate("fricative_db", "worst", max=1.5),
    Gate("pause_excess_db", "mean", max=1.0),
    Gate("pause_excess_db", "worst", max=4.0),
    Gate("group_delay_rad", "mean", max=0.25),
    Gate("instantaneous_frequency_rad", "mean", max=0.25),
    Gate("worst_instantaneous_frequency_rad", "worst", max=0.5),
    Gate("f0_cents", "mean", max=20.0),
    Gate("f0_drift_cents", "worst", max=10.0),
    Gate("voicing_error", "mean", max=0.05),
    *GUARDS,
    *_tokens(0.90, 0.03, 0.5),
    Gate("duration_change", "mean", max=0.03),
    Gate("duration_change", "worst", max=0.05),
    Gate("f0_mean_cents", "mean", max=20.0),
    Gate("f0_mean_cents", "worst", max=30.0),
    Gate("f0_spread_cents", "mean", max=10.0),
    Gate("f0_spread_cents", "worst", max=20.0),
    Gate("voiced_share_change", "mean", max=0.015),
    Gate("voiced_share_change", "worst", max=0.03),
    Gate("dtw_mcd_db", "mean", max=2.0),
    Gate("dtw_mcd_db", "worst", max=2.5),
)

PROFILES: MappingProxyType[str, tuple[Gate, ...]] = MappingProxyType({"transparent": TRANSPARENT, "8bit": EIGHT_BIT})
"""Gates by the name of their profile."""
