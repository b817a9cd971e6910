"""Sentences about where the error arises: English and Simplified Chinese side by side."""

from __future__ import annotations

DIAGNOSIS_WORDS: dict[str, tuple[str, str]] = {
    "part.clipping": ("clipping", "截断"),
    "part.rounding": ("rounding", "舍入"),
    "part.saturation": ("saturation", "饱和"),
    "part.formula": ("rounding formula", "舍入公式"),
    "part.propagated": ("came in wrong", "传入的误差"),
    "split.title.sites": (
        "Parts of the error at the costliest sites, {first} to {last}",
        "代价最高的位点的误差构成，第 {first} 至 {last} 个",
    ),
    "split.desc": (
        "Stacked bars: the size of the error relative to the float values, split by energy.",
        "堆叠横条：误差相对浮点值的大小，按能量划分。",
    ),
    "split.caption": (
        "The error at the sites that cost the outputs most, in network order, measured on {samples} samples with the "
        "float and the quantized network side by side. Length: size of the error relative to the float values behind "
        "the site; its parts share it as they share its energy. What came in wrong already is hatched grey.",
        "对输出影响最大的位点的误差，按网络顺序排列；在 {samples} 个样本上让浮点网络与量化网络并行运行测得。长度：误差"
        "相对该位点浮点值的大小，各部分按能量分配。灰色斜线为传入时已有的误差。",
    ),
    "split.table": (
        "Relative size of the parts of the error; “alone”: error of the outputs when only this site is treated.",
        "误差各部分的相对大小；“单独”：只处理该位点时输出的误差。",
    ),
    "split.tried": (
        "What was tried: each change alone, and the simulated error of the outputs with it (without it: {before}).",
        "尝试过的改动：每次只做一项，以及改动后模拟输出的误差（不改动时：{before}）。",
    ),
    "split.weights": ("{site}, weights", "{site}，权重"),
    "split.all_data": ("the data", "数据"),
    "column.alone": ("Alone", "单独"),
    "column.change": ("Change", "改动"),
    "column.output_error": ("Output error", "输出误差"),
    "column.part.clipping": ("Clipping", "截断"),
    "column.part.rounding": ("Rounding", "舍入"),
    "column.part.saturation": ("Saturation", "饱和"),
    "column.part.formula": ("Formula", "公式"),
    "column.part.propagated": ("Came in", "传入"),
}
