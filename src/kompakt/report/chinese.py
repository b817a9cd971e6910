"""The fixed sentences of the report, in Simplified Chinese: the keys of :mod:`.english`."""

from __future__ import annotations

CHINESE: dict[str, str] = {
    # the page
    "space": "",
    "colon": "：",
    "title": "{model}：kompakt 报告",
    "kicker": "压缩报告",
    "kicker.line": "{scheme}，目标 {target}",
    "contents": "目录",
    "figure": "图 {number}",
    "table": "表 {number}",
    "numbers": "{label} 的数据",
    "not_measured": "未测量",
    "none": "–",
    "yes": "是",
    "no": "否",
    "to": "{low} 至 {high}",
    "points": "{number} 个百分点",
    "times": "{number} 倍",
    "gain": "{drop}（即有所提高）",
    "list": "、",
    "notes": "请注意",
    "colophon": (
        "由 kompakt {version} 生成。本文件自成一体：不加载任何外部内容，不运行脚本；"
        "完整记录以 JSON 形式保存在 id 为 “record” 的元素中。"
    ),
    "colophon.shortened": "其中过长的文字和列表已被截短。",
    # the verdict
    "headline.slower": "没有变快：速度只有浮点模型的 {ratio}。",
    "headline.same": "没有变快：速度为浮点模型的 {ratio}，测不出差别。",
    "headline.noisy": "速度无法判断：这台机器噪声太大（测得 {ratio}）。",
    "headline.faster": "速度为浮点模型的 {ratio}",
    "headline.faster_smaller": "速度为浮点模型的 {ratio}，体积为其 {share}",
    "headline.smaller": "体积为浮点模型的 {share}",
    "headline.bigger": "没有变小：体积为浮点模型的 {share}。",
    "headline.speed_unmeasured": "未测量速度。",
    "headline.parity": "文件的计算结果与模拟不一致。",
    "headline.proven": "{metric}的下降已证实不超过 {margin}。",
    "headline.observed": "{metric}下降 {drop}：在允许的 {margin} 之内，但尚未证实。",
    "headline.violated": "{metric}下降 {drop}，超过允许的 {margin}。",
    "headline.undecided": "{metric}下降 {drop}；是否超过 {margin} 尚无定论。",
    "headline.drop": "{metric}下降 {drop}。",
    "headline.unmeasured": "未测量精度。",
    "headline.end": "。",
    "lede.accuracy": (
        "在 {n} 个样本上，{metric}：压缩后的文件为 {candidate}，同一运行时中的浮点模型为 "
        "{baseline}，下降 {drop}"
    ),
    "lede.interval": "（{confidence} 置信区间 {low} 至 {high}）",
    "lede.needed": "要得出结论约需 {n} 个样本。",
    "lede.agreement": "两者在 {agreement} 的样本上给出相同答案。",
    "lede.speed": (
        "与浮点模型交替计时（{setting}），耗时 {candidate}，浮点为 {baseline}：速度为其 {ratio}"
    ),
    "lede.size": "文件大小为 {candidate}，浮点为 {baseline}。",
    "mark.accuracy": "精度",
    "mark.speed": "速度",
    "mark.parity": "一致性",
    "mark.budget": "预算",
    "parity.exact": "逐位一致",
    "parity.within tolerance": "在容差之内",
    "parity.failed": "不一致",
    "budget.met": "满足",
    "budget.not_met": "未满足",
    "budget.none": "未设定",
    # what was chosen
    "chosen": "选中：{chosen}。",
    # four figures
    "comparison.title": "浮点与压缩后的并列比较",
    "comparison.short": "并列比较",
    "comparison.intro": (
        "两个文件都在同一台机器的 {runtime} 中、用同样的数据运行。“您的 PyTorch 模型”"
        "是交来时的模型，未经任何处理。"
    ),
    "panel.accuracy": "精度",
    "panel.latency": "延迟",
    "panel.size": "文件大小",
    "panel.memory": "内存峰值",
    "panel.size.note": "模型文件",
    "panel.memory.note": "相对进程启动时",
    "panel.float": "浮点 {value}",
    "panel.no_float": "浮点未测量",
    "panel.interval": "{confidence} 置信区间 {interval}",
    "panel.drop": "下降 {drop}",
    "panel.speed": "速度为 {ratio}",
    "panel.share": "浮点文件的 {share}",
    "panel.memory_share": "浮点模型的 {share}",
    "why.accuracy": "没有指定指标，或没有提供验证数据。",
    "why.latency": "本次运行没有测量速度。",
    "why.size": "没有记录文件大小。",
    "why.memory": "本次运行没有测量内存峰值。",
    "panel.title": "{name}：浮点 {baseline}，压缩后 {candidate}",
    "panel.desc": "从零开始的两条横条，上为浮点模型，下为压缩后的模型。",
    "comparison.caption": "两个文件并列比较。横条从零开始；斜线为浮点，实心为压缩后。",
    "comparison.table": "模型三个版本的全部测量结果。",
    "column.quantity": "项目",
    "column.source": "您的 PyTorch 模型",
    "column.baseline": "{runtime} 中的浮点模型",
    "column.candidate": "压缩后",
    "column.change": "变化",
    "column.interval": "{confidence} 置信区间",
    "row.latency": "延迟，中位数",
    "row.latency_p90": "延迟，90 百分位",
    "row.throughput": "吞吐量",
    "row.share": "浮点的 {share}",
    "row.per_second": "{number} /秒",
    "row.size": "文件大小",
    "row.memory": "相对启动时的内存峰值",
    "row.agreement": "与浮点答案相同",
    "certainty.drop.title": "{metric}下降 {drop}",
    "certainty.drop.axis": "下降，百分点（越右越差）",
    "certainty.drop.axis_plain": "下降（越右越差）",
    "certainty.zero": "无变化",
    "certainty.margin": "允许值",
    "certainty.speed.title": "相对浮点的速度：{ratio}",
    "certainty.speed.axis": "相对浮点的速度（越右越快）",
    "certainty.one": "速度相同",
    "certainty.minimum": "要求值",
    "certainty.desc": "一个点及其 {confidence} 置信区间：{interval}。",
    "certainty.caption": (
        "两个主要数字有多可靠。横线为 {confidence} 置信区间，圆点为估计值，方括号为单侧界。"
        "{drop}{speed}"
    ),
    "certainty.caption.drop": "只有整个单侧区间都在“允许值”左边，才算“已证实”。",
    "certainty.caption.speed": "灰色带是浮点与浮点自身比较时，这台机器的噪声所造成的范围。",
    "certainty.table": "估计值及其区间。",
    "certainty.row.drop": "{metric}的下降",
    "certainty.row.speed": "相对浮点的速度",
    "certainty.row.noise": "浮点与浮点比较（噪声）",
    "certainty.row.upper": "下降的单侧上界",
    "column.estimate": "估计值",
    "column.low": "从",
    "column.high": "到",
    "budget.table": "要求与结果。",
    "budget.asked": "要求",
    "budget.got": "结果",
    "budget.limit": "限制",
    "budget.max_drop": "最大下降",
    "budget.max_size_bytes": "最大体积",
    "budget.min_speedup": "最低速度",
    "budget.max_latency_ms": "最长延迟",
    "budget.at_most": "不超过 {value}",
    "budget.at_least": "不低于 {value}",
    "budget.bound": "{drop}，按要求的置信度不超过 {bound}",
    "budget.reasons": "未满足预算的原因：",
    # diagnosis
    "diagnosis.title": "精度损失在哪里，为什么",
    "diagnosis.title.unmeasured": "误差产生在哪里",
    "diagnosis.short": "原因",
    "diagnosis.none": "没有找到单一原因。下图显示误差在途中何处产生。",
    "diagnosis.no_sqnr": "本次运行没有测量单个位点的误差。",
    "profile.title": "{count} 个位点的信噪比，按网络顺序",
    "profile.desc": "最低的是 {site}，{value}。",
    "profile.axis": "网络顺序 →",
    "profile.y": "SQNR，dB",
    "profile.caption": (
        "每个量化位点的信号与量化噪声之比，左为输入，右为输出；越低越差。方块为权重，圆点为激活。"
        "数字对应 {bars} 中的位点；全部数值见“全部位点”。"
    ),
    "bars.title": "信噪比最低的位点，第 {first} 至 {last} 个",
    "bars.desc": "横条为舍入误差能量占信号能量的比例。",
    "bars.caption": (
        "损失最大的位点：舍入误差占信号能量的比例。每个位点单独计算，"
        "不含误差在后续各层中的传播。斜线为权重，实心为激活。"
    ),
    "bars.table": "信噪比最低的位点。",
    "column.site": "位点",
    "column.role": "张量",
    "column.sqnr": "SQNR，dB",
    "column.noise": "误差能量",
    # costliest sites
    "costliest.title": "代价最大的位点：数值分布与所选范围",
    "costliest.short": "代价最大的位点",
    "costliest.none": "本次运行没有记录分布。",
    "costliest.intro": (
        "范围太宽，编码就浪费在从不出现的数值上；范围太窄，数值就被截断。"
        "计数用对数刻度，否则看不见两端的稀有数值。"
    ),
    "costliest.key.values": "范围内的数值",
    "costliest.key.clipped": "范围外、被截断的数值",
    "costliest.key.range": "所选范围",
    "costliest.key.observed": "出现过的最小值和最大值",
    "costliest.caption": "代价最大的位点的数值分布与所选范围。",
    "costliest.range": "范围 {low} 至 {high}",
    "costliest.clipped": "截断 {share}",
    "costliest.outliers": "最大值为 99.9 百分位的 {ratio}",
    "costliest.dead": "无输出的通道：{count}",
    "costliest.sqnr": "SQNR {value} dB",
    "costliest.title.one": "{site} 的{role}：分布与所选范围",
    "costliest.desc": "{count} 个区间，从 {first} 到 {last}；所选范围 {low} 至 {high}。",
    "costliest.table": "{site} 的{role}：从此值起的个数；最后一个区间止于 {last}。",
    "column.bin_from": "起点",
    "column.count": "个数",
    # every site
    "sites.title": "全部位点",
    "sites.short": "全部位点",
    "sites.none": "没有记录位点。",
    "sites.summary": (
        "{total} 个位点中有 {quantized} 个已量化（{formats}）；{kept} 个保持浮点，均注明原因。"
    ),
    "sites.summary.all": "全部 {total} 个位点都已量化（{formats}）。",
    "sites.format_count": "{format} {count} 个",
    "sites.reasons": "保持浮点的原因。",
    "column.reason": "原因",
    "column.sites": "位点数",
    "sites.table": "全部 {total} 个位点。",
    "sites.table.cut": "{total} 个位点中的前 {shown} 个。",
    "sites.left_out": "另有 {count} 个位点只在产物的记录中，不在本页上。",
    "column.kind": "层",
    "column.format": "格式",
    "column.granularity": "缩放系数",
    "column.range_low": "下限",
    "column.range_high": "上限",
    "column.clipped": "截断",
    "column.zero_point": "零点",
    "sites.why_float": "浮点：{why}",
    "sites.no_reason": "没有记录原因",
    # parity
    "parity.title": "一致性：文件算出的是否就是模拟的结果？",
    "parity.short": "一致性",
    "parity.none": "本次运行没有检查一致性。",
    "parity.verdict.exact": (
        "是，逐位一致。在 {samples} 个样本上比较了 {quantizers} 个量化器："
        "模拟与 {runtime} 的全部 {codes} 个编码完全相同。"
    ),
    "parity.verdict.within tolerance": (
        "在规定的容差之内。{samples} 个样本、{quantizers} 个量化器的 {codes} 个编码中，"
        "有 {differing} 个（{share}）不同，最多相差 {largest}。"
    ),
    "parity.verdict.failed": (
        "否。{samples} 个样本、{quantizers} 个量化器的 {codes} 个编码中，"
        "有 {differing} 个（{share}）不同，最多相差 {largest}。"
    ),
    "parity.first": "第一个不同的位点是 {site}。",
    "parity.unfused": (
        "计划用整数算子、但在这台机器上夹在整数层之间以浮点运行的位点（{number} 个）：{sites}。"
    ),
    "parity.no_codes.exact": "是，在 {samples} 个样本上逐位一致。",
    "parity.no_codes.within tolerance": "在 {samples} 个样本上，在规定的容差之内。",
    "parity.no_codes.failed": "否；比较了 {samples} 个样本。",
    "parity.layers": (
        "{count} 个层在运行时确定范围。把运行时自己的浮点输入交给模拟中的每一层："
        "其中 {differing} 层不同，最多相差所加各数大小的 {error}；它们的输入最多相差 {input}。"
    ),
    "parity.forced": "在每个位点都采用运行时自己的值时，模拟的输出相对差异为 {error}。",
    "parity.free": (
        "只从模型输入出发自由运行时，相对差异为 {error}，单个值最多相差 {largest}，"
        "{codes} 个编码中有 {differing} 个不同：一个编码舍入到另一边，会影响其后的编码。"
        "此处只作说明，不设限。"
    ),
    "parity.table": "每个量化器比较的编码。",
    "parity.fused": "{runtime} 实际执行的图中的算子。",
    "parity.tolerances": "证书的容差：{list}。",
    "column.codes": "编码",
    "column.differing": "不同",
    "column.largest": "最大差异",
    "column.fed_by": "输入来自",
    "column.kernel": "算子",
    "column.number": "数量",
    # trials
    "trials.title": "尝试过的配置",
    "trials.short": "尝试",
    "trials.none": "只要求了一种配置，没有尝试其他配置。",
    "trials.intro": (
        "尝试了 {count} 种配置。没有希望的配置一经确定即被放弃；"
        "选中的配置用未参与选择的数据验证一次。"
    ),
    "trials.plot.title": "各次尝试的下降与速度",
    "trials.plot.title_size": "各次尝试的下降与大小",
    "trials.plot.desc": "共 {count} 次尝试；选中第 {chosen} 次。",
    "trials.plot.desc_none": "共 {count} 次尝试；没有选中任何一次。",
    "trials.axis.drop": "{metric}的下降",
    "trials.axis.drop_points": "{metric}的下降，百分点",
    "trials.axis.speed": "相对浮点的速度",
    "trials.axis.size": "大小，MB",
    "trials.caption": (
        "每次尝试的下降（越左越好）与{quantity}。实心菱形为选中者；数字对应 {table}。"
    ),
    "trials.caption.speed": "速度（越上越好）",
    "trials.caption.size": "大小（越下越好）",
    "trials.table": "各次尝试，按运行顺序。",
    "column.trial": "配置",
    "column.metric": "指标",
    "column.drop": "下降",
    "column.speed": "速度",
    "column.size": "大小",
    "column.samples": "样本",
    "column.time": "时间",
    "column.cpu_time": "处理器时间",
    "column.outcome": "结果",
    "trials.outcome": "{outcome}：{why}",
    # latency
    "latency.title": "不同线程数与批大小的延迟",
    "latency.short": "延迟",
    "latency.none": "本次运行没有测量速度。",
    "latency.intro": (
        "浮点与压缩后的模型在同一进程中交替运行，共 {pairs} 对，每对内顺序随机；"
        "速度为各对比值的中位数。"
    ),
    "latency.noise": "浮点与自身比较得到 {low} 至 {high}。",
    "latency.noisy": "范围太宽：此时在这台机器上，速度的微小差别没有意义。",
    "latency.plot.title": "不同线程数与批大小下相对浮点的速度",
    "latency.plot.desc": "{count} 种组合，从 {low} 到 {high}。",
    "latency.caption": "相对浮点的速度及其 {confidence} 置信区间。",
    "setting": "{threads} 线程，批大小 {batch}",
    "setting.one": "1 线程，批大小 {batch}",
    "latency.table": "不同线程数与批大小的延迟中位数。",
    "column.threads": "线程",
    "column.batch": "批大小",
    "column.float_ms": "浮点，ms",
    "column.compressed_ms": "压缩后，ms",
    # method
    "method.title": "如何测量",
    "method.short": "方法",
    "method.model": "模型",
    "method.recipe": "配方",
    "method.machine": "机器",
    "method.versions": "版本",
    "method.commands": "复现命令",
    "method.timings": "各阶段用时。",
    "method.scheme": "完整方案",
    "method.total": "合计",
    "column.stage": "阶段",
    "field.name": "名称",
    "field.parameters": "参数",
    "field.input": "输入",
    "field.output": "输出",
    "field.source_sha256": "源文件 SHA-256",
    "field.scheme": "方案",
    "field.level": "阶梯级别",
    "field.calibrator": "校准方法",
    "field.target": "目标",
    "field.session": "会话选项",
    "field.metric": "指标",
    "field.metric_value": "{n} 个样本上的{metric}",
    "field.method": "区间方法",
    "field.margin": "允许值",
    "field.confidence": "置信度",
    "field.pairs": "计时对数",
    "field.seed": "随机种子",
    # limits
    "limits.title": "本报告不能说明什么",
    "limits.short": "局限",
    "limits.file": (
        "所有数字只属于这个文件在 {isa} 上的 {runtime} 中的表现。换运行时、换版本或换指令集不同的"
        "处理器，舍入和饱和都可能不同：请在那里重新测量。"
    ),
    "limits.this_cpu": "本处理器",
    "limits.samples": ("精度区间只包含抽取 {n} 个相互独立样本时的偶然性，不涉及与此不同类的数据。"),
    "limits.no_metric": "没有在带标签的数据上测量指标，本报告无法说明模型有多准确。",
    "limits.latency": (
        "延迟属于这台机器在上述状态下的表现：负载、频率或散热不同，数字也不同。"
        "比值比毫秒数更能推广。"
    ),
    "limits.no_latency": "没有测量速度：文件变小不一定变快。",
    "limits.sqnr": (
        "SQNR 每次只看一个位点。比值低的位点不一定损失精度，许多小误差也会累积："
        "它告诉您去哪里看，而不是该怪谁。"
    ),
    "limits.selection": (
        "选中的配置是 {count} 次尝试中看起来最好的；它的最终数字来自另外的数据，其他尝试的则不是。"
    ),
    "limits.memory": "内存峰值取自只有一个会话的全新进程；有多个会话的服务器需要更多。",
}
