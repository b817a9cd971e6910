"""The catalogue behind ``kompakt help CODE``: one entry for every stable error code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One error code: a title, what it means, and what to do about it."""

    title: str
    explanation: str
    remedy: str


CATALOGUE: dict[str, Entry] = {
    # K0xx usage
    "K001": Entry(
        title="unusable argument",
        explanation="An argument has a value that the call cannot work with.",
        remedy="see the allowed values in the message, or run the command with --help",
    ),
    "K002": Entry(
        title="command line not understood",
        explanation="An option or argument is missing, unknown, given twice, or of the wrong kind.",
        remedy="run the command with --help",
    ),
    "K003": Entry(
        title="unknown name",
        explanation="A scheme, target, calibrator or metric of that name does not exist.",
        remedy="see the known names in the message, or list them with `kompakt explain`",
    ),
    "K004": Entry(
        title="unusable quantity",
        explanation=(
            "A size, a time or a number on the command line cannot be read, or lies outside of "
            "what makes sense. Sizes are written 10MB, 500kB or 1MiB; times 5ms, 200us or 0.1s."
        ),
        remedy="write a positive number with its unit, for instance 10MB or 5ms",
    ),
    "K005": Entry(
        title="nothing to explain",
        explanation="No observer, scheme, target, metric, method or number format has that name.",
        remedy="run `kompakt explain` without a name to see everything that can be explained",
    ),
    "K006": Entry(
        title="unknown error code",
        explanation="No error has that code in this version.",
        remedy="run `kompakt help codes` to see all of them",
    ),
    "K010": Entry(
        title="model source not found",
        explanation=(
            "SOURCE is neither package.module:function, nor a Hugging Face directory, nor a .pt2 "
            "file that exists."
        ),
        remedy=(
            "write a function that returns the model and name it package.module:function; the "
            "current folder is searched first"
        ),
    ),
    "K011": Entry(
        title="model function cannot be imported",
        explanation="The module or the function of SOURCE does not exist, or fails on import.",
        remedy="check it with: python -c 'import package.module'",
    ),
    "K012": Entry(
        title="model function failed",
        explanation=(
            "The function of SOURCE raised an error, or returned neither a model nor a model and "
            "its example inputs."
        ),
        remedy="call the function by itself; it takes no argument and returns a torch.nn.Module",
    ),
    "K013": Entry(
        title="pickled model refused",
        explanation=(
            "Loading a pickle (.pt, .pth, .bin, .pkl, .ckpt) can run any code its author put in, "
            "and it does not hold the model's class. kompakt never loads one."
        ),
        remedy=(
            "write a function that builds the model and loads weights you trust "
            "(load_state_dict(torch.load(path, weights_only=True))), and pass it as "
            "package.module:function"
        ),
    ),
    "K014": Entry(
        title=".pt2 file not trusted",
        explanation=(
            "A .pt2 file can hold a pickle, and loading it can run any code its author put in."
        ),
        remedy="add --trust-source if you made the file yourself or trust who did",
    ),
    "K015": Entry(
        title=".pt2 file cannot be loaded",
        explanation="torch.export cannot read the file.",
        remedy="write it again with torch.export.save, using the installed version of torch",
    ),
    "K016": Entry(
        title="Hugging Face directory without safe weights",
        explanation=(
            "The directory has no config.json, or its weights are not in safetensors. Weights in "
            "pytorch_model.bin are a pickle and are never loaded."
        ),
        remedy=(
            "convert the weights to safetensors where you trust them: "
            "AutoModel.from_pretrained(directory).save_pretrained(new_directory)"
        ),
    ),
    "K017": Entry(
        title="Hugging Face model cannot be loaded",
        explanation=(
            "transformers does not know the architecture, or the model needs code that comes with "
            "its files, which kompakt never runs."
        ),
        remedy="build the model in a function of your own and pass it as package.module:function",
    ),
    "K018": Entry(
        title="no example inputs",
        explanation=(
            "To capture a model kompakt runs it once, and nothing says what its inputs look like."
        ),
        remedy="return (model, example_inputs) from the function, or give --calibration",
    ),
    "K019": Entry(
        title="a package is not installed",
        explanation="This needs a package that is not among kompakt's own dependencies.",
        remedy="install it, for instance with: pip install 'kompakt[all]'",
    ),
    "K020": Entry(
        title="output cannot be printed",
        explanation="Writing to the terminal, pipe or file behind standard output failed.",
        remedy="free some space, or send the output somewhere else",
    ),
    "K021": Entry(
        title="out of memory",
        explanation="The machine has no memory left for this step.",
        remedy="use smaller batches, fewer calibration samples, or a machine with more memory",
    ),
    "K022": Entry(
        title="unusable dynamic dimension",
        explanation="A --dynamic option is not of the form input:dimension=name.",
        remedy="write for instance --dynamic input_ids:1=sequence",
    ),
    "K023": Entry(
        title="demo cannot run",
        explanation="The demo's training did not reach an accuracy worth compressing.",
        remedy="please report it with the output of `kompakt sys`",
    ),
    # K1xx capture and network
    "K100": Entry(
        title="the model fails on the example inputs",
        explanation="Before anything is captured the model is run once on the example inputs (a batch of 1 is repeated "
        "to 2). That run raised an error.",
        remedy="fix the example inputs or the line named in the message; the model must run on its own first",
    ),
    "K101": Entry(
        title="code that no graph can hold",
        explanation="Capturing follows the model's code once and records the operators. A decision that depends on the "
        "values of a tensor, or a detour through another library, cannot be recorded.",
        remedy="rewrite the named line with torch operators such as torch.where, or capture the part of the model "
        "around it",
    ),
    "K102": Entry(
        title="torch.export cannot follow the model",
        explanation="PyTorch's exporter, which records the operators, raised an error in the named line.",
        remedy="rewrite the named line, or capture a part of the model without it",
    ),
    "K103": Entry(
        title="example inputs that do not fit forward()",
        explanation="Example inputs are a tensor, a tuple of positional or a dict of keyword inputs, and must fit the "
        "signature of the model's forward.",
        remedy="pass what you would pass to the model: capture(model, (a, b)) or capture(model, {'a': a, 'b': b}); "
        "a single dict argument is written ({...},)",
    ),
    "K104": Entry(
        title="a dynamic dimension that does not exist",
        explanation="The argument dynamic= names input tensors and their axes; one of them does not exist.",
        remedy="use the input names and axes listed in the message",
    ),
    "K105": Entry(
        title="a region that a plain graph cannot hold",
        explanation="Control flow operators, autocast regions and scripted objects run part of a model under rules "
        "of their own. A network is one plain graph.",
        remedy="take the region out of forward, for example autocast around the whole model instead",
    ),
    "K106": Entry(
        title="a dimension that the model fixes",
        explanation="A dimension was asked to be dynamic, but the model's code only works for one size of it, for "
        "instance because it writes the size into a reshape.",
        remedy="use x.shape[...] instead of the number in the model, or leave the dimension out of dynamic=",
    ),
    "K107": Entry(
        title="a model that cannot be copied",
        explanation="A network owns a copy of the weights, made with copy.deepcopy, so that the model stays as it is. "
        "That copy failed.",
        remedy="remove what cannot be copied: old-style weight_norm hooks (torch.nn.utils.remove_weight_norm), open "
        "files, locks, tensors with a gradient history",
    ),
    "K108": Entry(
        title="a captured network that computes something else",
        explanation="After capturing, the network and the model are run on the example inputs with the same seed. "
        "Their outputs differ, so the network is not returned.",
        remedy="look for state that changes from call to call, or for code that looks at the clock, the device or "
        "global variables; if there is none, please report it",
    ),
    "K109": Entry(
        title="not a module that can be captured",
        explanation="Capturing follows the Python code of an nn.Module. Functions, scripted and traced modules "
        "have none "
        "that could be followed.",
        remedy="pass the nn.Module itself, before torch.jit.script or torch.jit.trace; wrap a function in a module",
    ),
    "K120": Entry(
        title="an ONNX operator that does not run",
        explanation="An operator PyTorch has no form for is run by ONNX Runtime, which refused it.",
        remedy="run the whole file in ONNX Runtime: if it runs there, please report it",
    ),
    "K121": Entry(
        title="a model that is quantized already",
        explanation="The ONNX file holds quantized operators. Compressing it once more would add up two losses and "
        "hide the first.",
        remedy="give the float model it was made from; `kompakt measure` measures the file as it is",
    ),
    "K122": Entry(
        title="an ONNX graph that cannot be followed",
        explanation="An input or output is no tensor, or a node reads a value that nothing makes.",
        remedy="check the file with onnx.checker; sequences, optionals and strings must stay inside the graph",
    ),
    "K123": Entry(
        title="an import that does not compute the same",
        explanation="The network made from an ONNX file is run beside ONNX Runtime before it is used, and their "
        "outputs differ.",
        remedy="please report it, with the file or the operators it holds",
    ),
    "K124": Entry(
        title="an example that does not fit the ONNX file",
        explanation="ONNX Runtime cannot load the file, or cannot run it on the example inputs.",
        remedy="see the runtime's own words in the message; `kompakt inspect` lists inputs and their shapes",
    ),
    "K125": Entry(
        title="an input that cannot be fixed",
        explanation="An input of an ONNX file can be turned into a constant (`model.onnx?name=value`) when the file "
        "has it and its size does not change.",
        remedy="see the names of the inputs in the message",
    ),
    "K130": Entry(
        title="inputs with the wrong structure",
        explanation="A network is called like the model: the same parameters, the same nested containers, the same "
        "keys as in the example inputs it was captured with.",
        remedy="compare the call with network.input_specs",
    ),
    "K131": Entry(
        title="an argument that was captured with another value",
        explanation="Arguments that are not tensors (numbers, flags, None) are part of the captured graph.",
        remedy="capture again with the value you want",
    ),
    "K132": Entry(
        title="an input with the wrong dtype",
        explanation="Every input must have the dtype it was captured with.",
        remedy="convert the input with .to(dtype)",
    ),
    "K133": Entry(
        title="an input with the wrong shape",
        explanation="An input has another rank than at capture, a fixed dimension has another size, or two dimensions "
        "that must be equal are not.",
        remedy="compare the input with network.input_specs; more dimensions can be made dynamic at capture",
    ),
    "K140": Entry(
        title="a file that is no ONNX model",
        explanation="The file is missing, empty, no plain file, cut off, or not written in ONNX's format.",
        remedy="export or download the model again",
    ),
    "K141": Entry(
        title="a model file beyond all measure",
        explanation="A model file is untrusted input. Far more nodes, names, nested graphs, dimensions or bytes than "
        "real models have, or a few constants that unfold into gigabytes, are refused before they are loaded.",
        remedy="if the model is honest, give sizes of inputs that are smaller, or simplify it before the export",
    ),
    "K142": Entry(
        title="a stored tensor that is not what it says",
        explanation="A tensor's shape, element type and data in an ONNX file do not fit each other.",
        remedy="export or download the model again; do not use a file that somebody changed by hand",
    ),
    "K143": Entry(
        title="weights that are not beside the model",
        explanation="An ONNX file may keep weights in other files. They must be plain files in the model's own folder "
        "or below it: no absolute paths, no '..', no links, and no reading past their end.",
        remedy="put the model and its weight files together into one folder, as copies (cp -L) instead of links",
    ),
    "K144": Entry(
        title="an ONNX graph that is not valid",
        explanation="Names are there twice, nodes read what nothing made before, functions call themselves, an "
        "attribute is not what it says, tensors are sparse, or the ONNX checker found something.",
        remedy="export the model again with a current exporter; onnx.checker.check_model says what it finds",
    ),
    "K145": Entry(
        title="a scale that is no positive number",
        explanation="The scale of a quantized value, or the factor of a resize, is NaN, infinite, zero, negative or "
        "too small. Runtimes load such files and compute nonsense.",
        remedy="quantize the model again, with calibration data that is not all zero",
    ),
    "K146": Entry(
        title="a model file that its test did not survive",
        explanation="Model files are first loaded and run once in a process with limited memory and time. That process "
        "crashed, or wanted more than its limits.",
        remedy="do not use the file if it comes from a stranger; otherwise run it in ONNX Runtime and see what it "
        "needs",
    ),
    "K320": Entry(
        title="a pattern that matches nothing",
        explanation="A selector for layers (a glob over names, kind:… or type:…) selects none of the network's layers, "
        "so what was asked for would silently not happen.",
        remedy="see the names with `kompakt inspect`, and correct the pattern",
    ),
    "K321": Entry(
        title="a selector of an unknown form",
        explanation="Layers are selected by a glob over names, by kind:… (what they do) or by type:… (their class).",
        remedy="write for example 'layer1.*', 'kind:linear' or 'type:Conv2d'",
    ),
    # K2xx data and metrics
    "K200": Entry(
        title="data not found",
        explanation="The data string names no file, folder, function or built-in data set.",
        remedy="use a .npz file, a folder of images, package.module:function, or builtin:digits",
    ),
    "K201": Entry(
        title="unusable data option",
        explanation="An option after `?` in a data string is unknown or has an unusable value.",
        remedy=(
            "see the allowed options in the message; they are written like "
            "folder/?size=224&batch=20"
        ),
    ),
    "K202": Entry(
        title="unusable .npz file",
        explanation=(
            "The file is not a zip of plain numeric arrays: damaged, holding pickled objects, or "
            "lying about sizes."
        ),
        remedy="write it again with numpy.savez(path, input_name=array, labels=labels)",
    ),
    "K203": Entry(
        title="empty data",
        explanation="The data holds no batch, or a batch holds no sample.",
        remedy="give at least one batch with at least one sample",
    ),
    "K204": Entry(
        title="wrong number type in data",
        explanation="A tensor of a batch has another number type than the model's input.",
        remedy="convert the tensor before it is batched, for instance with .float() or .long()",
    ),
    "K205": Entry(
        title="shape does not fit",
        explanation="A tensor of a batch has a shape the model's input does not accept.",
        remedy=(
            "shape the data like the example input; only dimensions captured as dynamic may differ"
        ),
    ),
    "K206": Entry(
        title="data can be read only once",
        explanation="A generator or iterator was given where the data is needed more than once.",
        remedy=(
            "give a list of batches, a DataLoader, or a function that returns a new iterator each"
            " time"
        ),
    ),
    "K207": Entry(
        title="NaN or infinity in data",
        explanation="An input tensor holds a value that is not a finite number.",
        remedy="clean the data; the message names the batch and the input",
    ),
    "K208": Entry(
        title="unreadable image",
        explanation="A file in an image folder cannot be decoded, or is too large.",
        remedy="remove or repair the file named in the message",
    ),
    "K209": Entry(
        title="batch does not fit the model's inputs",
        explanation="A batch has too many or too few parts, or parts under unknown names.",
        remedy=(
            "yield inputs, or (inputs, labels); inputs is a tensor, a tuple in order, or a dict "
            "by input name"
        ),
    ),
    "K210": Entry(
        title="labels missing",
        explanation="The metric needs labels and the data has none.",
        remedy="yield (inputs, labels), or use --metric agreement, which needs no labels",
    ),
    "K211": Entry(
        title="labels do not fit",
        explanation="There are more or fewer labels than samples.",
        remedy="give one label for each sample of the batch",
    ),
    "K212": Entry(
        title="data function failed",
        explanation=(
            "The function named in the data string could not be imported or raised an error."
        ),
        remedy=(
            "run the function by itself; it takes no argument (or split=) and returns an iterable"
            " of batches"
        ),
    ),
    "K213": Entry(
        title="data changed between two passes",
        explanation="The data gave other samples, or another order, when it was read again.",
        remedy="give data with a fixed order, for instance a DataLoader with shuffle=False",
    ),
    "K214": Entry(
        title="data too large to hold in memory",
        explanation="The data has to be kept in memory and is larger than the limit.",
        remedy=(
            "use fewer samples; save arrays uncompressed with numpy.savez, so that they are memory-mapped; "
            "or give data that can be read more than once (a list, a DataLoader) instead of a generator"
        ),
    ),
    "K220": Entry(
        title="unknown metric",
        explanation="No built-in metric has that name.",
        remedy="use a built-in metric, or package.module:function",
    ),
    "K221": Entry(
        title="metric cannot be imported",
        explanation="The metric's module or function does not exist or fails on import.",
        remedy="check the name with: python -c 'import package.module'",
    ),
    "K222": Entry(
        title="metric returned no number",
        explanation="The metric returned NaN, infinity or something that is no number.",
        remedy="return finite numbers: one for each sample, or one for all of them",
    ),
    "K223": Entry(
        title="metric returned a wrong number of scores",
        explanation="The metric returned more or fewer scores than the batch has samples.",
        remedy="return one score for each sample, or a single number",
    ),
    "K224": Entry(
        title="outputs do not fit the metric",
        explanation="The model's output has a shape or content this metric cannot judge.",
        remedy="choose another metric, or write one as package.module:function",
    ),
    "K225": Entry(
        title="the model's output is not a number",
        explanation="The model returned NaN.",
        remedy="look for overflow in the model; a scheme of fewer bits or fp16 can cause it",
    ),
    "K226": Entry(
        title="metric function failed",
        explanation="The metric function raised an error.",
        remedy="run the function by itself on one batch of outputs and labels",
    ),
    "K227": Entry(
        title="metric undefined on this data",
        explanation=(
            "The metric has no value here, for instance a correlation with constant labels."
        ),
        remedy="use data in which labels and outputs vary, or another metric",
    ),
    "K230": Entry(
        title="statistics need other numbers",
        explanation=(
            "A confidence, margin or number of samples is outside of what the statistics can use."
        ),
        remedy=(
            "confidence lies between 0.5 and 1, margins are at least 0, and at least two samples "
            "are needed"
        ),
    ),
    "K231": Entry(
        title="scores are not paired",
        explanation="Two sets of scores do not belong to the same samples.",
        remedy="evaluate both models on the same data in the same order",
    ),
    "K240": Entry(
        title="latency cannot be measured",
        explanation=(
            "The measurement was asked for with unusable settings, or the clock does not advance."
        ),
        remedy="use at least 60 pairs and at least 1 ms for each timing",
    ),
    "K247": Entry(
        title="no batch norms to generate inputs from",
        explanation=(
            "Calibration inputs can be generated from the statistics that batch norms keep of the "
            "training data. This network has none: it was built without batch norms, or its file "
            "has them folded into other layers and lost their statistics."
        ),
        remedy="give a few real samples (8 are often enough), or use --level 1, which needs none",
    ),
    "K248": Entry(
        title="inputs that cannot be generated",
        explanation=(
            "Generated calibration inputs are improved in small steps, which is only possible for "
            "floating-point inputs, not for token ids and the like."
        ),
        remedy="give a few real samples, or use --level 1, which needs none",
    ),
    "K249": Entry(
        title="no derivatives to generate inputs by",
        explanation=(
            "Generated calibration inputs are improved along the network's derivatives, and a part "
            "of this network runs outside of PyTorch, where there are none."
        ),
        remedy="give a few real samples (8 are often enough), or use --level 1, which needs none",
    ),
    "K250": Entry(
        title="memory cannot be measured",
        explanation="The fresh process that loads and runs the model failed or took too long.",
        remedy="the reason is in the message; run the model once by hand",
    ),
    # K3xx numerics, schemes, placement, calibration
    "K300": Entry(
        title="unknown number format",
        explanation="No number format has this name. Integer formats are called int1…int16, "
        "uint1…uint16 and int2_narrow…int16_narrow; floats are fp32, fp16, bf16, fp8_e4m3 and "
        "fp8_e5m2.",
        remedy="use one of the names above",
    ),
    "K301": Entry(
        title="a number that is not finite",
        explanation="A tensor to be quantized, its range, or its scale holds NaN or infinity. No "
        "integer code stands for those, and a range that includes them has no scale.",
        remedy="find where the value comes from (a division by zero, an overflow, a broken "
        "checkpoint) and fix it",
    ),
    "K302": Entry(
        title="a range or scale that makes no sense",
        explanation="A quantization range has its low end above its high end, or a scale is zero "
        "or negative.",
        remedy="pass lo <= hi, and scales as kompakt.numerics.affine.choose_qparams computes them",
    ),
    "K303": Entry(
        title="a granularity that does not fit the tensor",
        explanation="The tensor has no such axis, or the scales given do not have the shape this "
        "granularity needs.",
        remedy="compare the granularity's parameter_shape(tensor.shape) with the scales",
    ),
    "K304": Entry(
        title="unknown rounding",
        explanation="No rounding formula has this name.",
        remedy="use one of the names in kompakt.numerics.rounding.ROUNDINGS",
    ),
    "K305": Entry(
        title="unreadable granularity",
        explanation="A scheme file describes a granularity that does not exist or lacks a setting.",
        remedy="write {kind = 'per_tensor'}, {kind = 'per_channel', axis = 0}, {kind = "
        "'per_group', axis = 1, size = 32} or {kind = 'per_token'}",
    ),
    "K306": Entry(
        title="codes that cannot be packed",
        explanation="Packing stores 4-bit or 2-bit codes densely in bytes; a code outside that "
        "range, or a byte array of the wrong length, has no packed form.",
        remedy="quantize to int4, uint4, int2 or uint2 first, and unpack with the original shape",
    ),
    "K307": Entry(
        title="an integer accumulator overflow",
        explanation="An exact integer convolution or matrix product does not fit the accumulator "
        "of real kernels: the deployed model would wrap around silently.",
        remedy="use fewer bits for weights or activations of this layer, or keep it in float",
    ),
    "K340": Entry(
        title="a treatment that says too little or something unknown",
        explanation="A treatment names a mode, a weight format and, where activations are quantized, an "
        "activation format.",
        remedy="start from a preset such as w8a8() and change one thing",
    ),
    "K341": Entry(
        title="a scheme that cannot be read",
        explanation="A scheme file has a wrong structure or an unknown key.",
        remedy="write a preset with Scheme.to_json() and edit that",
    ),
    "K342": Entry(
        title="an unknown scheme",
        explanation="There is neither a preset nor a scheme file of that name.",
        remedy="see `kompakt explain schemes`",
    ),
    "K343": Entry(
        title="a quantizer without a range",
        explanation="A static quantizer was used before it was calibrated.",
        remedy="calibrate the placed network with a few batches first",
    ),
    "K344": Entry(
        title="a layer without a treated form",
        explanation="kompakt knows no treated version of this kind of layer.",
        remedy="leave the layer in float with --keep-float",
    ),
    "K345": Entry(
        title="a scheme that treats nothing",
        explanation="No layer of the network can be treated as the scheme asks, on this runtime.",
        remedy="run `kompakt inspect` to see why each layer stays float, or choose another scheme",
    ),
    "K346": Entry(
        title="an unknown calibrator",
        explanation="There is no observer of that name.",
        remedy="see `kompakt explain calibrators`",
    ),
    "K347": Entry(
        title="a site without calibration",
        explanation="The calibration did not observe a site that needs a range.",
        remedy="calibrate again with the taps of this network's plan",
    ),
    "K350": Entry(
        title="a layer's input that is not finite",
        explanation="A method that rounds weights by what they multiply met NaN or infinity in calibration samples.",
        remedy="check the calibration data, and the layers before the named one in the float model; a mask should use "
        "a large negative number instead of -inf",
    ),
    "K330": Entry(
        title="no calibration data",
        explanation="The calibration data holds no batch, or a batch holds no sample.",
        remedy="give at least one batch with a few dozen representative samples",
    ),
    "K331": Entry(
        title="NaN or infinity inside the network",
        explanation="A tensor on an observed site is not finite, so no range covers it.",
        remedy=(
            "check the named batch and the layers before the site in the float model; a mask should use a "
            "large negative number instead of -inf"
        ),
    ),
    "K332": Entry(
        title="NaN or infinity in a calibration input",
        explanation="An input tensor of a calibration batch is not finite.",
        remedy="clean the data; the message names the batch and the input",
    ),
    "K333": Entry(
        title="calibration batch does not fit the network",
        explanation="A batch has other inputs than the network, or its inputs differ in sample count.",
        remedy="give the inputs only (no labels), in the network's order or by name",
    ),
    "K334": Entry(
        title="site cannot be observed",
        explanation="A tap names no node of the graph, or its tensor is not floating-point.",
        remedy="take the taps from the plan of the same network",
    ),
    "K336": Entry(
        title="calibrations cannot be merged",
        explanation="Two calibrations did not observe the same sites or inputs.",
        remedy="merge calibrations of the same network with the same taps",
    ),
    "K337": Entry(
        title="unusable observer setting",
        explanation="An observer was made with a value it cannot work with.",
        remedy="see the allowed values in the message",
    ),
    "K338": Entry(
        title="damaged calibration sketch",
        explanation="The arrays of a calibration sketch are missing, of wrong shape, or contradict each other.",
        remedy="calibrate again, or take the sketch from an intact artifact",
    ),
    "K339": Entry(
        title="no observations",
        explanation="A range was asked of a site that no calibration value ever reached.",
        remedy="calibrate with data that reaches the site, or leave the site in float",
    ),
    # K4xx targets and parity
    "K400": Entry(
        title="a format the runtime cannot execute",
        explanation="The scheme asks for a number format that the target has no kernel for.",
        remedy="choose one of the formats named in the message",
    ),
    "K401": Entry(
        title="an operator that cannot be written",
        explanation="An operator of the network has no form in the target's file format.",
        remedy="replace the operator in the model, or report it",
    ),
    "K402": Entry(
        title="an invalid file",
        explanation="The written model does not pass the format's own checker: a bug in kompakt.",
        remedy="please report it with the output of `kompakt sys`",
    ),
    "K403": Entry(
        title="inputs the runtime refuses",
        explanation="The runtime refused to run the model on these inputs.",
        remedy="check names, shapes and element types against `kompakt inspect`",
    ),
    "K404": Entry(
        title="an unknown target",
        explanation="There is no target of that name.",
        remedy="see `kompakt sys` for the targets and which are installed",
    ),
    "K405": Entry(
        title="a runtime that is not installed",
        explanation="The target's runtime is an optional dependency.",
        remedy="install it with the extra named in the message",
    ),
    "K406": Entry(
        title="an opset that cannot be raised",
        explanation="A format needs a newer version of the standard ONNX operators than the file uses, and onnx "
        "could not convert it. Codes of 8 bits need 13, all others 21.",
        remedy="export the model again with a newer opset",
    ),
    # K5xx artifacts and output
    "K500": Entry(
        title="the output directory cannot be written",
        explanation="The file system or its permissions do not allow writing beside the output "
        "directory. An artifact is built in a hidden neighbour and then renamed, so the"
        " parent directory must be writable too.",
        remedy="choose an output directory whose parent you may write to",
    ),
    "K501": Entry(
        title="no space left for the output",
        explanation="The disk, the quota or the file-size limit is used up. Nothing half-written "
        "was left, and an older artifact at the same place is untouched.",
        remedy="free some space or write to another disk, then run the same command again",
    ),
    "K502": Entry(
        title="the output could not be written",
        explanation="The operating system reported an error while the artifact was written. Nothing"
        " half-written was left, and an older artifact at the same place is untouched.",
        remedy="look at the disk's health (dmesg), or write to another disk",
    ),
    "K503": Entry(
        title="another run is writing here",
        explanation="Two runs on one output directory would overwrite each other, so the second one"
        " stops.",
        remedy="wait for the other run to end, or choose another output directory",
    ),
    "K504": Entry(
        title="the output directory holds something else",
        explanation="Only an empty directory or an artifact whose every file kompakt wrote itself "
        "is replaced, so that no file of yours is ever deleted.",
        remedy="choose another output directory, or move away what is there",
    ),
    "K505": Entry(
        title="the output directory cannot be swapped",
        explanation="An artifact appears by renaming a finished directory. A mount point, the "
        "directory one stands in, or a directory of a read-only image layer cannot be "
        "renamed.",
        remedy="write to a new directory inside it, for example -o DIR/model",
    ),
    "K506": Entry(
        title="unusable file name",
        explanation="Names of files in an artifact are relative, with / between their parts, and "
        "work on every operating system: no '..', no control characters, none of \\ : * "
        '? " < > |, at most 255 bytes a part.',
        remedy="give the file another name",
    ),
    "K507": Entry(
        title="a manifest that cannot be written",
        explanation="The manifest is JSON. It can hold texts, numbers, lists and objects, but no "
        "NaN, no infinity and no other Python objects.",
        remedy="write null where there is no figure, and plain numbers elsewhere",
    ),
    "K510": Entry(
        title="not a kompakt artifact",
        explanation="The path is not a directory with a manifest.json that kompakt wrote.",
        remedy="give the directory that `kompakt compress -o DIR` wrote",
    ),
    "K511": Entry(
        title="a damaged artifact",
        explanation="A file is missing, cut short or not the one that was written: its size or its "
        "sha256 differs from the manifest's.",
        remedy="copy the artifact again from where it was made; `kompakt verify DIR` lists "
        "every file concerned",
    ),
    "K512": Entry(
        title="an entry that does not belong",
        explanation="The directory holds a file the manifest does not list, a symbolic or hard "
        "link, or something that is not a plain file. Such an entry could reach outside"
        " the directory or change after it was checked, so it is refused.",
        remedy="remove the entry, or copy the artifact with `cp -rL`, which turns links into files",
    ),
    "K513": Entry(
        title="an unreadable manifest",
        explanation="manifest.json is not a manifest of the form that kompakt writes.",
        remedy="copy the artifact again from where it was made",
    ),
    "K514": Entry(
        title="an artifact from a newer kompakt",
        explanation="The manifest has a schema version that this kompakt does not know.",
        remedy="upgrade: pip install --upgrade kompakt",
    ),
    "K515": Entry(
        title="an unreadable array file",
        explanation="The .npz file is not one that kompakt writes: it is no zip of plain arrays, "
        "holds pickled objects (which are never executed), or claims more data than it "
        "has.",
        remedy="copy the artifact again from where it was made",
    ),
    "K516": Entry(
        title="no such file in the artifact",
        explanation="The manifest lists no file of this name.",
        remedy="use one of the names in Artifact.files",
    ),
    "K520": Entry(
        title="a report that cannot be written",
        explanation="The report's file could not be created: the folder is missing or not "
        "writable, or the disk is full. A report that was there before is untouched.",
        remedy="make the folder, or choose another place for the report",
    ),
    "K530": Entry(
        title="a model file the runtime refuses",
        explanation="The runtime did not accept the model file: it is damaged, or written for a newer version.",
        remedy="check it with `kompakt verify`, and the runtime's version with `kompakt sys`",
    ),
    "K531": Entry(
        title="an artifact without a golden pack",
        explanation="Replaying compares with stored inputs, outputs and codes, and this artifact holds none.",
        remedy="compress the model again; every artifact written by `compress` has a golden pack",
    ),
    "K532": Entry(
        title="an artifact that does not describe its target",
        explanation="The manifest does not say which runtime the model file is for and how to load it.",
        remedy="write the artifact with `compress`, or load the model file with its runtime yourself",
    ),
    "K540": Entry(
        title="an artifact the server cannot run",
        explanation="Triton runs ONNX, OpenVINO, TensorRT and TorchScript files. It has no backend for the files of "
        "this target.",
        remedy="compress the model again with --target onnxruntime, openvino, tensorrt or torchscript",
    ),
    "K541": Entry(
        title="a model that is in the repository already",
        explanation="A model of that name, or that version of it, is there. It may be served just now, so it is not "
        "replaced. A model of the same inputs and outputs can become a new version of it.",
        remedy="give another --version or --name, or remove what is there",
    ),
    "K542": Entry(
        title="a batch the model does not take",
        explanation="A server makes one batch of several requests only where all inputs and outputs begin with the "
        "same dynamic dimension.",
        remedy="compress with --dynamic INPUT:0=batch, or serve the model with --max-batch 0",
    ),
    "K543": Entry(
        title="a step of an ensemble that does not fit",
        explanation="What stands before or behind the model is an .onnx file, or a .py file with the constants INPUTS "
        "and OUTPUTS. Tensors are wired by name, so names, types and shapes have to be the same.",
        remedy="rename the step's tensors after the model's inputs or outputs",
    ),
    "K544": Entry(
        title="a server configuration that cannot be read",
        explanation="A config.pbtxt has a field or a value that the schema of the server does not have.",
        remedy="write the model anew under another name, or correct the file by hand",
    ),
    # K6xx budgets and search
    "K600": Entry(
        title="an impossible budget",
        explanation="A limit of the budget is not a usable number.",
        remedy="drops are 0 or more, sizes and speed-ups positive",
    ),
    "K601": Entry(
        title="a static scheme without calibration data",
        explanation="Static activation ranges come from data, and none was given.",
        remedy="give --calibration DATA, or choose --level 1 (dynamic, weight-only)",
    ),
    "K602": Entry(
        title="nothing could be built",
        explanation="Every candidate failed before it became a file.",
        remedy="the trials say why each failed; `kompakt inspect` shows what can be treated",
    ),
    "K603": Entry(
        title="a limit without what it takes to check it",
        explanation="The budget limits something that would not be measured.",
        remedy="give the data or measurement the message names",
    ),
    "K620": Entry(
        title="no choice to find the sensitivity to",
        explanation="The sensitivity of layers is found for formats the target can execute, by the names of the "
        "choices.",
        remedy="name other choices; the message lists them",
    ),
    "K625": Entry(
        title="too few samples for a diagnosis",
        explanation="Errors are measured on samples; one alone tells nothing about channels and ranges.",
        remedy="give --samples 2 or more; 32 is usual",
    ),
    "K626": Entry(
        title="too little data for a diagnosis",
        explanation="Errors are measured on one half of the data, and ranges are tried on the other, so it takes two "
        "rows or, for a model with a fixed batch size, two batches.",
        remedy="give more data; 64 rows or more tell most",
    ),
    "K627": Entry(
        title="an artifact that does not tell how it was made",
        explanation="Its record lacks the scheme, the target or the sites: without them the network cannot be rebuilt.",
        remedy="make the artifact anew with this version, or diagnose the SOURCE itself",
    ),
    "K630": Entry(
        title="not a journal",
        explanation="The file given as a journal was not written by kompakt. It is left as it is.",
        remedy="name another file, or delete this one",
    ),
    "K631": Entry(
        title="a journal in use",
        explanation="Another run writes this journal; two at once would do the same work twice.",
        remedy="wait until the other run has ended, or give --journal another FILE",
    ),
    "K632": Entry(
        title="a model that cannot be sent to other processes",
        explanation="Several processes each need the model. A captured network that was no ONNX file, and modules that "
        "cannot be pickled, cannot be sent to them.",
        remedy="give the module itself rather than the captured network, or sweep with one job",
    ),
    "K633": Entry(
        title="the processes of a sweep do not start",
        explanation="Several worker processes in a row died before they were ready for a trial, most often for want of "
        "memory. Finished trials are in the journal.",
        remedy="run the same command with fewer --jobs",
    ),
    "K634": Entry(
        title="no Ray",
        explanation="The sweep was to run on Ray, which is not installed, or there is no cluster at this address that "
        "lets it in.",
        remedy="start a cluster with `ray start --head`, give its address (and set RAY_AUTH_MODE=token where it asks "
        "for a token), or use --jobs instead of --ray",
    ),
    "K635": Entry(
        title="no optuna",
        explanation="A space too large to be tried as a whole is searched by optuna, which is not installed.",
        remedy='pip install "kompakt[sweep]", or name fewer schemes, methods, calibrators and targets',
    ),
    # K9xx internal
    "K900": Entry(
        title="internal error",
        explanation="kompakt reached a state it should never reach: a bug in kompakt.",
        remedy="please report it with the output of `kompakt sys` and the command you ran",
    ),
}
