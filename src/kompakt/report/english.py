"""The fixed sentences of the report, in English; :mod:`.chinese` has the same keys."""

from __future__ import annotations

ENGLISH: dict[str, str] = {
    # the page
    "space": " ",
    "colon": ": ",
    "title": "{model}: kompakt report",
    "kicker": "Compression report",
    "kicker.line": "{scheme} for {target}",
    "contents": "Contents",
    "figure": "Figure {number}",
    "table": "Table {number}",
    "numbers": "Numbers behind {label}",
    "not_measured": "not measured",
    "none": "–",
    "yes": "yes",
    "no": "no",
    "to": "{low} to {high}",
    "points": "{number} points",
    "times": "{number}×",
    "gain": "{drop} (a gain)",
    "list": ", ",
    "separator": "; ",
    "notes": "To keep in mind",
    "colophon": (
        "Written by kompakt {version}. This file is complete in itself: it loads nothing, runs no "
        "script, and carries its record as JSON in the element with the id “record”."
    ),
    "colophon.shortened": "Very long texts and lists are shortened in it.",
    # the verdict
    "headline.slower": "Not faster: it runs at {ratio} the speed of the float model.",
    "headline.same": (
        "Not faster: {ratio} the speed of the float model, no difference that can be measured."
    ),
    "headline.noisy": "Speed undecided: this machine was too noisy to tell ({ratio} measured).",
    "headline.faster": "{ratio} the speed of the float model",
    "headline.faster_smaller": "{ratio} the speed and {share} of the size of the float model",
    "headline.smaller": "{share} of the size of the float model",
    "headline.bigger": "Not smaller: {share} of the size of the float model.",
    "headline.speed_unmeasured": "Speed was not measured.",
    "headline.parity": "The file does not compute what was simulated.",
    "headline.proven": "The drop in {metric} is proven to be at most {margin}.",
    "headline.observed": "The drop in {metric} is {drop}: within {margin}, but not proven.",
    "headline.violated": "The drop in {metric} is {drop}, more than the {margin} allowed.",
    "headline.undecided": (
        "The drop in {metric} is {drop}; whether it stays within {margin} is undecided."
    ),
    "headline.drop": "The drop in {metric} is {drop}.",
    "headline.unmeasured": "Accuracy was not measured.",
    "headline.end": ".",
    "lede.accuracy": (
        "On {n} samples the compressed file reaches {candidate} {metric} against {baseline} for "
        "the float model in the same runtime: a change of {change}"
    ),
    "lede.interval": " ({confidence} interval {low} to {high})",
    "lede.needed": "Settling it would take about {n} samples.",
    "lede.agreement": "Both give the same answer on {agreement} of the samples.",
    "lede.speed": (
        "Timed in alternation with the float model ({setting}), it takes {candidate} instead of "
        "{baseline}: {ratio} the speed"
    ),
    "lede.size": "On disk it takes {candidate} instead of {baseline}.",
    "mark.accuracy": "Accuracy",
    "mark.speed": "Speed",
    "mark.parity": "Parity",
    "mark.budget": "Budget",
    "parity.exact": "exact",
    "parity.within tolerance": "within tolerance",
    "parity.failed": "failed",
    "budget.met": "met",
    "budget.not_met": "not met",
    "budget.none": "none set",
    # what was chosen
    "chosen": "Chosen: {chosen}.",
    "batch.suffix": ", batch {batch}",
    # four figures
    "comparison.title": "Float and compressed, side by side",
    "comparison.short": "Side by side",
    "comparison.intro": (
        "Both files ran in {runtime} on the same machine and the same data. “Your PyTorch model” "
        "is the model as it was handed in, before anything was done to it."
    ),
    "panel.accuracy": "Accuracy",
    "panel.latency": "Latency",
    "panel.size": "Size on disk",
    "panel.memory": "Peak memory",
    "panel.size.note": "model files",
    "panel.memory.note": "above process start",
    "panel.float": "float {value}",
    "panel.no_float": "float not measured",
    "panel.interval": "{confidence} interval {interval}",
    "panel.change": "change {change}",
    "panel.speed": "{ratio} the speed",
    "panel.share": "{share} of the float file",
    "panel.memory_share": "{share} of the float model’s",
    "why.accuracy": "No metric was asked for, or no validation data were given.",
    "why.latency": "Speed was not measured in this run.",
    "why.size": "The file sizes were not recorded.",
    "why.memory": "Peak memory was not measured in this run.",
    "panel.title": "{name}: float {baseline}, compressed {candidate}",
    "panel.desc": "Two bars from zero, the float model above and the compressed model below.",
    "comparison.caption": (
        "The two files side by side. Bars start at zero; hatched is float, solid is compressed."
    ),
    "comparison.table": "Everything measured, for three versions of the model.",
    "column.quantity": "Quantity",
    "column.source": "Your PyTorch model",
    "column.baseline": "Float in {runtime}",
    "column.candidate": "Compressed",
    "column.change": "Change",
    "column.interval": "{confidence} interval",
    "row.latency": "Latency, median",
    "row.latency_p90": "Latency, 90th percentile: 9 of 10 calls are faster",
    "row.throughput": "Throughput{batch}",
    "row.share": "{share} of float",
    "row.per_second": "{number} /s",
    "row.size": "Size on disk",
    "row.memory": "Peak memory above start",
    "row.agreement": "Same answer as float",
    "certainty.drop.title": "Drop in {metric}: {drop}",
    "certainty.drop.axis": "drop, points (right is worse)",
    "certainty.drop.axis_plain": "drop (right is worse)",
    "certainty.zero": "no change",
    "certainty.margin": "allowed",
    "certainty.speed.title": "Speed relative to float: {ratio}",
    "certainty.speed.axis": "speed relative to float (right is faster)",
    "certainty.one": "same speed",
    "certainty.minimum": "asked for",
    "certainty.desc": "A point with its {confidence} interval: {interval}.",
    "certainty.caption": (
        "How sure the two main figures are. The line is the {confidence} interval, the dot the "
        "estimate, the bracket the one-sided bound. {drop} {speed}"
    ),
    "certainty.caption.drop": (
        "The verdict “proven” needs the whole one-sided interval left of “allowed”."
    ),
    "certainty.caption.speed": (
        "The grey band is what this machine’s noise alone produces when float is timed against "
        "float."
    ),
    "certainty.table": "The estimates and their intervals.",
    "certainty.row.drop": "Drop in {metric}",
    "certainty.row.speed": "Speed relative to float",
    "certainty.row.noise": "Float against float (noise)",
    "certainty.row.upper": "One-sided upper bound of the drop",
    "column.estimate": "Estimate",
    "column.low": "From",
    "column.high": "To",
    "budget.table": "What was asked for, and what came out.",
    "budget.asked": "Asked for",
    "budget.got": "Came out",
    "budget.limit": "Limit",
    "budget.max_drop": "Largest drop",
    "budget.max_size_bytes": "Largest size",
    "budget.min_speedup": "Least speed",
    "budget.max_latency_ms": "Longest latency",
    "budget.at_most": "at most {value}",
    "budget.at_least": "at least {value}",
    "budget.bound": "{drop}, at most {bound} with the confidence asked for",
    "budget.reasons": "Why the budget is not met:",
    # diagnosis
    "diagnosis.title": "Where the accuracy went, and why",
    "diagnosis.title.unmeasured": "Where the error arises",
    "diagnosis.short": "Why",
    "diagnosis.none": (
        "No single cause was found. The figures show where on the way the error arises."
    ),
    "diagnosis.no_sqnr": "The error of single sites was not measured in this run.",
    "profile.title": "Signal-to-noise ratio of {count} sites in network order",
    "profile.desc": "The lowest is {site} with {value}.",
    "profile.axis": "network order →",
    "profile.y": "SQNR, dB",
    "profile.caption": (
        "Signal-to-quantization-noise ratio of every quantized site, input on the left, output on "
        "the right; lower is worse. Squares are weights, dots are activations. Numbers name the "
        "sites of {bars}; all values stand under “Every site”."
    ),
    "bars.title": "Sites with the lowest signal-to-noise ratio, {first} to {last}",
    "bars.desc": "Bars show the energy of the rounding error as a share of the signal’s energy.",
    "bars.caption": (
        "The sites that lose most: rounding error as a share of the signal’s energy. Each site on "
        "its own, before its error spreads through the layers behind it. Hatched bars are weights, "
        "solid bars activations."
    ),
    "bars.table": "Sites with the lowest signal-to-noise ratio.",
    "column.site": "Site",
    "column.role": "Tensor",
    "column.sqnr": "SQNR, dB",
    "column.noise": "Error energy",
    # costliest sites
    "costliest.title": "The costliest sites: their values and the ranges chosen",
    "costliest.short": "Costliest sites",
    "costliest.none": "No distributions were recorded in this run.",
    "costliest.intro": (
        "A range too wide wastes codes on values that never come; one too narrow clips. Counts are "
        "on a logarithmic scale, or the rare values at the ends could not be seen."
    ),
    "costliest.key.values": "values inside the range",
    "costliest.key.clipped": "values outside, clipped",
    "costliest.key.range": "range chosen",
    "costliest.key.observed": "smallest and largest value seen",
    "costliest.caption": "Distribution of values and chosen range at the costliest sites.",
    "costliest.range": "range {low} to {high}",
    "costliest.clipped": "{share} clipped",
    "costliest.outliers": "largest value {ratio} the 99.9th percentile",
    "costliest.dead": "dead channels: {count}",
    "costliest.sqnr": "SQNR {value} dB",
    "costliest.title.one": "{role} of {site}: distribution and chosen range",
    "costliest.desc": "{count} bins from {first} to {last}; chosen range {low} to {high}.",
    "costliest.table": (
        "{role} of {site}: from here on, so many values; the last bin ends at {last}."
    ),
    "column.bin_from": "From",
    "column.count": "Count",
    # every site
    "sites.title": "Every site",
    "sites.short": "Every site",
    "sites.none": "No sites were recorded.",
    "sites.summary": (
        "{quantized} of {total} sites are quantized ({formats}). Kept in float: {kept}, each for a "
        "reason that is given."
    ),
    "sites.summary.all": "All {total} sites are quantized ({formats}).",
    "sites.format_count": "{count} in {format}",
    "sites.reasons": "Why sites stay float.",
    "column.reason": "Reason",
    "column.sites": "Sites",
    "sites.table": "All {total} sites.",
    "sites.table.cut": "The first {shown} of {total} sites.",
    "sites.left_out": "{count} more sites are in the record of the artifact, not on this page.",
    "column.kind": "Layer",
    "column.format": "Format",
    "column.granularity": "Scales",
    "column.range_low": "Low",
    "column.range_high": "High",
    "column.clipped": "Clipped",
    "column.zero_point": "Zero point",
    "sites.why_float": "float: {why}",
    "sites.no_reason": "no reason was recorded",
    # parity
    "parity.title": "Parity: does the file compute what was simulated?",
    "parity.short": "Parity",
    "parity.none": "Parity was not checked in this run.",
    "parity.verdict.exact": (
        "Yes, to the bit. {quantizers} quantizers were compared on {samples} samples: all {codes} "
        "codes are the same in the simulation and in {runtime}."
    ),
    "parity.verdict.within tolerance": (
        "Within the stated tolerances. Of {codes} codes at {quantizers} quantizers on {samples} "
        "samples, {differing} ({share}) differ, by at most {largest}."
    ),
    "parity.verdict.failed": (
        "No. Of {codes} codes at {quantizers} quantizers on {samples} samples, {differing} "
        "({share}) differ, by up to {largest}."
    ),
    "parity.first": "The first site that differs is {site}.",
    "parity.unfused": (
        "Planned for integer kernels, but run in float on this machine, between integer layers "
        "({number}): {sites}."
    ),
    "parity.no_codes.exact": "Yes, to the bit, on {samples} samples.",
    "parity.no_codes.within tolerance": "Within the stated tolerances, on {samples} samples.",
    "parity.no_codes.failed": "No; {samples} samples were compared.",
    "parity.layers": (
        "{count} layers find their ranges while they run. Each was given the runtime’s own float "
        "input: {differing} of them differ, by at most {error} of what they add up; their inputs "
        "by at most {input}."
    ),
    "parity.forced": (
        "Given the runtime’s own values at every site, the simulation’s output differs by {error} "
        "(relative)."
    ),
    "parity.free": (
        "Running freely, from the model’s inputs alone, it differs by {error}, in one value by at "
        "most {largest}, and {differing} of {codes} codes differ: one code that rounds the other "
        "way moves others behind it. This is stated, not limited."
    ),
    "parity.table": "Codes compared at each quantizer.",
    "parity.fused": "Operators in the graph that {runtime} really executes.",
    "parity.tolerances": "What the certificate accepts: {list}.",
    "column.codes": "Codes",
    "column.differing": "Differing",
    "column.largest": "Largest difference",
    "column.fed_by": "Fed by",
    "column.kernel": "Operator",
    "column.number": "Number",
    # trials
    "trials.title": "What was tried",
    "trials.short": "Trials",
    "trials.none": "One configuration was asked for; nothing else was tried.",
    "trials.intro": (
        "{count} configurations were tried. Hopeless ones are dropped as soon as that is certain; "
        "the chosen one is certified once, on data that were not used to choose it."
    ),
    "trials.plot.title": "Trials by drop and speed",
    "trials.plot.title_size": "Trials by drop and size",
    "trials.plot.desc": "{count} trials; the chosen one is number {chosen}.",
    "trials.plot.desc_none": "{count} trials; none was chosen.",
    "trials.axis.drop": "drop in {metric}",
    "trials.axis.drop_points": "drop in {metric}, points",
    "trials.axis.speed": "speed relative to float",
    "trials.axis.size": "size, MB",
    "trials.caption": (
        "Each trial by its drop (left is better) and its {quantity}. The filled diamond is the one "
        "chosen; numbers are those of {table}."
    ),
    "trials.caption.speed": "speed (up is better)",
    "trials.caption.size": "size (down is better)",
    "trials.table": "Trials in the order they ran.",
    "column.trial": "Trial",
    "column.metric": "Metric",
    "column.drop": "Drop",
    "column.speed": "Speed",
    "column.size": "Size",
    "column.samples": "Samples",
    "column.time": "Time",
    "column.bought": "What it bought",
    "column.cpu_time": "Processor time",
    "column.outcome": "Outcome",
    "trials.outcome": "{outcome}: {why}",
    "trials.bought.drop": "drop {before} → {after}",
    "trials.bought.error": "output error {before} → {after}",
    # latency
    "latency.title": "Latency by threads and batch size",
    "latency.short": "Latency",
    "latency.none": "Speed was not measured in this run.",
    "latency.intro": (
        "Float and compressed ran in alternation in one process, in random order within each of "
        "{pairs} pairs; the speed is the median of the pairs’ ratios."
    ),
    "latency.noise": "Float timed against itself gave {low} to {high}.",
    "latency.noisy": (
        "That is too wide: on this machine, at this time, small differences in speed mean nothing."
    ),
    "latency.plot.title": "Speed relative to float by threads and batch size",
    "latency.plot.desc": "{count} combinations, from {low} to {high}.",
    "latency.caption": "Speed relative to float with its {confidence} interval.",
    "setting": "{threads} threads, batch {batch}",
    "setting.one": "1 thread, batch {batch}",
    "latency.table": "Median latency by threads and batch size.",
    "column.threads": "Threads",
    "column.batch": "Batch",
    "column.float_ms": "Float, ms",
    "column.compressed_ms": "Compressed, ms",
    # method
    "method.title": "How this was measured",
    "method.short": "Method",
    "method.model": "Model",
    "method.recipe": "Recipe",
    "method.machine": "Machine",
    "method.versions": "Versions",
    "method.commands": "Commands that reproduce it",
    "method.timings": "Time spent, by stage.",
    "method.scheme": "The scheme in full",
    "method.total": "Total",
    "column.stage": "Stage",
    "field.name": "Name",
    "field.parameters": "Parameters",
    "field.input": "Input",
    "field.output": "Output",
    "field.source_sha256": "SHA-256 of the source",
    "field.scheme": "Scheme",
    "field.level": "Level of the ladder",
    "field.calibrator": "Calibrator",
    "field.methods": "Methods",
    "field.target": "Target",
    "field.session": "Session options",
    "field.metric": "Metric",
    "field.metric_value": "{metric} on {n} samples",
    "field.method": "Interval",
    "field.margin": "Margin",
    "field.confidence": "Confidence",
    "field.pairs": "Timed pairs",
    "field.seed": "Seed",
}
