"""Sentences of the page about a sweep: English and Simplified Chinese side by side."""

from __future__ import annotations

SWEEP_WORDS: dict[str, tuple[str, str]] = {
    "sweep.title": ("Sweep of {model}", "{model} 的扫描"),
    "sweep.kicker": ("kompakt sweep", "kompakt 扫描"),
    "sweep.headline": (
        "{front} of {count} ways to compress {model} are on the front.",
        "压缩 {model} 的 {count} 种方式中，{front} 种位于前沿。",
    ),
    "sweep.headline.none": (
        "No way to compress {model} has been measured yet.",
        "尚未测量压缩 {model} 的任何方式。",
    ),
    "sweep.unfinished": (
        "The sweep is not finished: {done} of {planned} trials are made. The same command goes on from here.",
        "扫描尚未完成：{planned} 次试验中已完成 {done} 次。再次运行同一命令即可继续。",
    ),
    "sweep.lede": (
        "On the front, nothing gains without a loss elsewhere.",
        "在前沿上，任何一方面的改善都以另一方面为代价。",
    ),
    "sweep.lede.open": (
        "Not told apart from something better by the figures: {number}; the intervals overlap.",
        "另有 {number} 种的数字不如某一种，但区间有重叠，无法区分。",
    ),
    "sweep.lede.dominated": (
        "Dominated: {number}. Something is at least as accurate, as fast and as small as each of them, whatever values "
        "within the {confidence} intervals are the true ones.",
        "{number} 种被支配：无论 {confidence} 区间内的哪个值为真，总有一种至少同样准确、同样快、同样小。",
    ),
    "sweep.lede.refused": (
        "Without a file that can be used: {number}; the table says why.",
        "{number} 种无法完成或一致性不通过；原因见表。",
    ),
    "sweep.choices": ("What to take", "如何选择"),
    "sweep.choice.accurate": ("the most accurate", "最准确"),
    "sweep.choice.fast": ("the fastest", "最快"),
    "sweep.choice.small": ("the smallest", "最小"),
    "sweep.plane": ("The front", "前沿"),
    "sweep.plane.intro": (
        "Left and up is better. A bar is a {confidence} interval. The line is the border of what the front reaches in "
        "the two figures of a picture; a trial behind it may be on the front for the third.",
        "左上方更好。线段是 {confidence} 区间。折线是前沿在图中两个量上所达到的边界；"
        "其后的试验可能因第三个量而位于前沿。",
    ),
    "sweep.plot.speed": (
        "Speed and loss of accuracy of each trial",
        "每次试验的速度与精度损失",
    ),
    "sweep.plot.size": ("Size and loss of accuracy of each trial", "每次试验的大小与精度损失"),
    "sweep.plot.desc": (
        "{count} trials, {front} on the front",
        "{count} 次试验，{front} 次位于前沿",
    ),
    "sweep.axis.drop_points": ("loss of {metric}, points →", "{metric}的损失，百分点 →"),
    "sweep.axis.drop": ("loss of {metric} →", "{metric}的损失 →"),
    "sweep.axis.error": ("relative error of the outputs, % →", "输出的相对误差，% →"),
    "sweep.axis.speed": ("↑ times as fast as float in {runtime}", "↑ 相对 {runtime} 浮点的倍速"),
    "sweep.axis.size": (
        "↑ times as small as float in {runtime}",
        "↑ 相对 {runtime} 浮点缩小的倍数",
    ),
    "sweep.caption": (
        "{what}. Numbers are those of {table}.",
        "{what}。编号见{table}。",
    ),
    "sweep.caption.off": (
        "Left out, far to the right: {numbers}.",
        "未画出（远在右侧）：{numbers}。",
    ),
    "sweep.caption.cut": (
        "Bars that leave a picture are cut at its border.",
        "超出图框的线段在边界处截断。",
    ),
    "sweep.key.front": ("on the front", "位于前沿"),
    "sweep.key.open": ("not told apart", "无法区分"),
    "sweep.key.dominated": ("dominated", "被支配"),
    "sweep.key.float": ("float file", "浮点文件"),
    "sweep.trials": ("All trials", "全部试验"),
    "sweep.front.table": ("The trials on the front.", "前沿上的试验。"),
    "sweep.table": (
        "Every trial: those on the front, those not told apart from it, the dominated ones, and what came to nothing.",
        "每次试验：前沿上的、与其无法区分的、被支配的，以及未成功的。",
    ),
    "sweep.standing.front": ("front", "前沿"),
    "sweep.standing.not told apart": ("not told apart from {better}", "与 {better} 无法区分"),
    "sweep.standing.dominated": ("dominated by {better}", "被 {better} 支配"),
    "sweep.column.number": ("No.", "编号"),
    "sweep.column.trial": ("Trial", "试验"),
    "sweep.column.runtime": ("Runtime", "运行时"),
    "sweep.column.standing": ("Standing", "地位"),
    "sweep.column.loss": ("Loss", "损失"),
    "sweep.column.loss_points": ("Loss, points", "损失，百分点"),
    "sweep.column.loss_interval": ("{confidence} interval", "{confidence} 区间"),
    "sweep.column.speed": ("Speed, ×", "速度，×"),
    "sweep.column.latency": ("Latency", "延迟"),
    "sweep.column.size": ("Size", "大小"),
    "sweep.how": ("How it was found", "如何得出"),
    "sweep.how.all": (
        "All {count} combinations of schemes, calibrators, methods and runtimes were tried.",
        "尝试了方案、校准器、方法与运行时的全部 {count} 种组合。",
    ),
    "sweep.how.searched": (
        "The space is too large to be tried as a whole: {sampler} proposed {count} trials, with the seed {seed}.",
        "空间太大，无法全部尝试：{count} 次试验由 {sampler} 以种子 {seed} 提出。",
    ),
    "sweep.how.data": (
        "Accuracy is the paired loss against each runtime’s own float file on {n} samples that were not used to "
        "calibrate.",
        "精度是在 {n} 个未用于校准的样本上，与各运行时自身浮点文件成对比较的损失。",
    ),
    "sweep.how.no_data": (
        "No data to judge on was given: the error of the outputs on a few samples stands for the loss.",
        "没有提供用于评判的数据：以少量样本上的输出误差代替损失。",
    ),
    "sweep.how.parity": (
        "Each file was checked against the integer referee; one that computes something else has no standing.",
        "每个文件都与整数参考实现核对过；计算结果与模拟不符的文件没有地位。",
    ),
    "sweep.how.time": (
        "Each file was timed in turn with one and the same float file ({runtime}), while no other trial computed; the "
        "speed is the median of the pairs’ ratios, so a slow moment of the machine slows both.",
        "每个文件都与同一个浮点文件（{runtime}）轮流计时，期间没有其他试验在计算；速度是各对比值的中位数，"
        "因此机器的短暂变慢会同时影响两者。",
    ),
    "sweep.how.machines": (
        "Trials were timed on {number} different machines. Times of different machines are not compared.",
        "试验在 {number} 台不同的机器上计时。不同机器的时间不作比较。",
    ),
    "sweep.limits.chosen": (
        "A front is chosen by looking: the best of many looks better than it is. Take one trial from it and certify "
        "it on data that the sweep did not see, with the command below.",
        "前沿是看着结果选出来的：许多次中最好的会显得比实际更好。请从中选取一种，"
        "用下面的命令在扫描未见过的数据上验证。",
    ),
    "sweep.limits.joint": (
        "Each interval holds with {confidence}, not all of them at once.",
        "每个区间各自以 {confidence} 成立，并非同时成立。",
    ),
    "sweep.certify": ("Certify one of them", "验证其中之一"),
    "sweep.again": ("Command", "命令"),
}
