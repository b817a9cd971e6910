"""Sentences about the choice, what is accepted, and the limits: English and Simplified Chinese side by side."""

from __future__ import annotations

BILINGUAL: dict[str, tuple[str, str]] = {
    # what was chosen
    "recipe.named": ("{name} ({recipe})", "{name}（{recipe}）"),
    "recipe.static": (
        "{weight}-bit weights and activations, integer arithmetic",
        "{weight} 位权重和激活，整数运算",
    ),
    "recipe.static.two": (
        "{weight}-bit weights and {activation}-bit activations, integer arithmetic",
        "{weight} 位权重、{activation} 位激活，整数运算",
    ),
    "recipe.static.float": (
        "weights and activations as {weight}-bit floats",
        "权重和激活存为 {weight} 位浮点数",
    ),
    "recipe.dynamic": (
        "{weight}-bit weights, activation ranges found at run time",
        "{weight} 位权重，激活范围在运行时求得",
    ),
    "recipe.weight_only": (
        "{weight}-bit weights, float arithmetic",
        "{weight} 位权重，浮点运算",
    ),
    "recipe.float": ("nothing is compressed", "未压缩"),
    "trials.chosen": ("Number {number}, {name}, was chosen.", "选中第 {number} 个配置 {name}。"),
    "trials.chosen.why": (
        "Number {number}, {name}, was chosen: {why}.",
        "选中第 {number} 个配置 {name}：{why}。",
    ),
    "runtimes.table": (
        "Runtimes side by side, timed in turn in one process.",
        "各运行时并列比较，在同一进程中轮流计时。",
    ),
    "column.runtime": ("Runtime", "运行时"),
    "column.parity": ("Parity", "一致性"),
    # the data behind it
    "split": (
        "No separate test data were given, so the validation data were split: {choosing} samples "
        "to choose among the trials, the other {certifying} for the figures on this page. With "
        "test data (--test) all of them would count.",
        "没有提供单独的测试数据，因此验证数据被分成两半：{choosing} 个样本用于在各次尝试中选择，"
        "其余 {certifying} 个用于本页的数字。提供测试数据（--test）后，全部样本都会计入。",
    ),
    "changes.text": (
        "Of {n} samples, {lost} were right with the float model and are wrong now; {gained} were "
        "wrong and are right now.",
        "{n} 个样本中，{lost} 个原来正确、现在错误；{gained} 个原来错误、现在正确。",
    ),
    "changes.none": (
        "Of {n} samples, none changed from right to wrong or from wrong to right.",
        "{n} 个样本中，没有一个改变对错。",
    ),
    "changes.table": (
        "Classes in which most samples changed sides.",
        "改变对错的样本最多的类别。",
    ),
    "column.class": ("Class", "类别"),
    "column.lost": ("Now wrong", "现在错误"),
    "column.gained": ("Now right", "现在正确"),
    # what was compared, and what is accepted
    "parity.outputs_only": (
        "No activation is quantized, so there are no codes: only the outputs were compared, on "
        "{samples} samples. Their relative error is {error}.",
        "没有量化的激活，因此没有编码可比：只在 {samples} 个样本上比较了输出，相对误差为 {error}。",
    ),
    "parity.exact_on": (
        "No integer sum of this file saturates on processors of these families: {list}.",
        "在以下处理器系列上，这个文件的整数求和都不会饱和：{list}。",
    ),
    "parity.saturating": (
        "On x86 without VNNI, sums of two products leave 16 bits in {number} layers, and the file "
        "computes something else there: {sites}.",
        "在没有 VNNI 的 x86 处理器上，有 {number} 个层的两个乘积之和超出 16 位，"
        "文件在那里会算出别的结果：{sites}。",
    ),
    "parity.not_seen": (
        "In {number} layers the weights would allow such sums on x86 without VNNI; on {samples} samples "
        "none occurred: {sites}.",
        "有 {number} 个层的权重在没有 VNNI 的 x86 处理器上可能出现这样的和；"
        "在 {samples} 个样本上没有出现：{sites}。",
    ),
    "parity.other_weights": (
        "{number} layers have 7-bit or unsigned weights so that their sums cannot saturate there: {sites}.",
        "有 {number} 个层采用 7 位或无符号权重，使它们的求和在那里不会饱和：{sites}。",
    ),
    "parity.outputs_only.short": ("outputs only", "只比较输出"),
    "tolerance.integer_share": (
        "behind an integer kernel {value} of the codes may differ",
        "整数算子之后可有 {value} 的编码不同",
    ),
    "tolerance.integer_step": ("such a code by at most {value}", "此类编码最多相差 {value}"),
    "tolerance.float_share": (
        "behind a float kernel {value} of them",
        "浮点算子之后可有 {value}",
    ),
    "tolerance.table_share": ("behind a look-up table {value}", "查表之后可有 {value}"),
    "tolerance.float_step": ("such a code by at most {value}", "此类编码最多相差 {value}"),
    "tolerance.wide_step": (
        "a code of more than 8 bits by at most {value}",
        "超过 8 位的编码最多相差 {value}",
    ),
    "tolerance.output_error": (
        "the outputs by a relative {value}",
        "输出的相对误差最多 {value}",
    ),
    "tolerance.probe_error": (
        "the outputs with the codes made visible by a relative {value}",
        "显示编码时输出的相对误差最多 {value}",
    ),
    "tolerance.layer_error": (
        "the output of a layer that finds its range while it runs by a relative {value}",
        "运行时求范围的层，其输出的相对误差最多 {value}",
    ),
    "tolerance.none": ("none", "零个"),
    # limits
    "limits.title": (
        "What this report cannot tell",
        "本报告不能说明什么",
    ),
    "limits.short": (
        "Limits",
        "局限",
    ),
    "limits.file": (
        "Every figure belongs to this file in {runtime} on {isa}. Another runtime, another "
        "version or a processor with other instructions may round and saturate differently: "
        "measure there.",
        "所有数字只属于这个文件在 {isa} 上的 {runtime} 中的表现。换运行时、换版本或换指令集不"
        "同的处理器，舍入和饱和都可能不同：请在那里重新测量。",
    ),
    "limits.this_cpu": (
        "this processor",
        "本处理器",
    ),
    "limits.samples": (
        "The accuracy interval covers chance in drawing {n} samples, each independent of the "
        "others. It says nothing about data of another kind than these.",
        "精度区间只包含抽取 {n} 个相互独立样本时的偶然性，不涉及与此不同类的数据。",
    ),
    "limits.no_metric": (
        "Without a metric on labelled data, nothing here says how accurate it is.",
        "没有在带标签的数据上测量指标，本报告无法说明模型有多准确。",
    ),
    "limits.latency": (
        "Latency belongs to this machine in the state described above: other load, clock "
        "rates or cooling give other figures. The ratio travels better than the milliseconds.",
        "延迟属于这台机器在上述状态下的表现：负载、频率或散热不同，数字也不同。比值比毫秒数更"
        "能推广。",
    ),
    "limits.no_latency": (
        "Speed was not measured: a smaller file is not always a faster one.",
        "没有测量速度：文件变小不一定变快。",
    ),
    "limits.sqnr": (
        "SQNR looks at one site at a time. A site with a low ratio need not cost accuracy, "
        "and small errors can add up: it shows where to look, not what to blame.",
        "SQNR 每次只看一个位点。比值低的位点不一定损失精度，许多小误差也会累积：它告诉您去哪"
        "里看，而不是该怪谁。",
    ),
    "limits.selection": (
        "The chosen trial looked best among {count}; its final figures come from separate "
        "data, those of the other trials do not.",
        "选中的配置是 {count} 次尝试中看起来最好的；它的最终数字来自另外的数据，其他尝试的则不是。",
    ),
    "limits.memory": (
        "Peak memory is one fresh process with one session; a server with several needs more.",
        "内存峰值取自只有一个会话的全新进程；有多个会话的服务器需要更多。",
    ),
}
