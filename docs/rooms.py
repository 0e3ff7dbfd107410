"""The rooms of the package, from the ground up: what the tests hold the imports to, and the docs draw."""

#: Floor by floor, the rooms in order: a file imports from its own room and from rooms before it.
FLOORS: list[dict[str, str]] = [
    {
        "errors": "the warnings, and the error for an unknown name",
        "storage": "files that execute nothing when they are read: saved estimators, exports, whole-file writes",
    },
    {
        "images": "whatever the user has → `Images`: arrays, files, data sets and streams; labels",
        "datasets": "data sets by name, and generated ones",
    },
    {
        "nn": "heads, momentum copies, queues and banks, clusters, BatchNorm, precision, several processes",
        "backbones": "encoders by name, or any module",
        "augment": "random numbers first, then views by a pure function; the papers' presets; saliency maps",
        "losses": "losses as pure functions of tensors",
    },
    {"training": "a step, an epoch, a training: loader, objective, trainer, optimisers, checkpoints, digests, devices"},
    {"pretext": "one file a pretext task, which any method takes as `aux`"},
    {"methods": "`SSLTransformer`, and one file a method: its mathematics"},
    {
        "probes": "trained encoders and what judges their features: linear, kNN and MLP probes",
        "metrics": "measures of representations that need no probe",
        "results": "`compare` and its tables",
    },
    {
        "display": "plots, and the report with its template",
        "transfer": "few labels, linear transfer, detection and segmentation",
        "callbacks": "what watches a training",
    },
    {"recipes": "the papers' settings by data set"},
]
