"""From fer2013.csv to a trained, measured, deployable net: a rule for each stage of `python -m pipeline`.

snakemake -j4 train                        the whole way, on data/raw/fer2013.csv or else on the drawn sample
snakemake predict --config input=X         read expressions: X is cam, an image, a folder, a video, a stream
"""

import os
from copy import deepcopy

from snakemake.common import async_run
from snakemake.exceptions import WorkflowError
from snakemake.io import is_flagged
from snakemake.utils import min_version

if os.path.exists("pipeline.py"):  # Python looks here first
    raise WorkflowError("pipeline.py in this folder would run in place of the package pipeline; rename it")

from pipeline.classifier.model_folder import FILES as MODEL_FILES
from pipeline.data.folds import fold_mark
from pipeline.stages.environment import read_command_line, read_environment
from pipeline.stages.workflow import (
    check_settings,
    command_options,
    ENSEMBLE_FILES,
    find_dataset,
    find_net_settings,
    find_weights,
    is_address,
    members,
    exported_files,
    model_files,
    print_closing_words,
    print_errors_last,
    require_engine,
    parse_input,
    watch_store,
)

min_version("9.0")

# The environment overrides every file of settings, and the command line, with the files that it names all of config here,
# the environment: after each configfile, which would change tables in `said`, a copy of it is put over config again.
said = read_environment(os.environ) | config | read_command_line(workflow.config_settings.config_args)
shell.prefix('unset "${{!EXPRESSIONS_@}}"; ')  # the stages get them as options


configfile: "config/config.yaml"


config.update(deepcopy(said))
net_settings = find_net_settings(config["net"])
if net_settings:

    configfile: net_settings

    config.update(deepcopy(said))


dataset = find_dataset(config)
if dataset.is_sample:

    configfile: "config/sample.yaml"

    config.update(deepcopy(said))


check_settings(config)
config["weights"] = find_weights(config["weights"])
if workflow.storage_settings.default_storage_provider or any(
    is_address(str(path)) for path in (dataset.source, config["ferplus"])
):
    for settings in workflow.storage_provider_settings.get("s3", ()):
        if settings.endpoint_url:
            watch_store(settings.endpoint_url)


def given(path):
    """A file that is there before the run: in object storage by its address, else on this machine."""
    return storage(path) if is_address(path) else local(path)


def source():
    """The data set; a folder's times say nothing of the files in it."""
    path = str(dataset.source)
    if dataset.is_sample:
        return path
    return ancient(given(path)) if dataset.is_folder else given(path)


IMAGES = f"data/{dataset.name}/images"
ALIGNED = f"data/{dataset.name}/aligned"
FACES = f"data/{dataset.name}/{config['train_on']}"
# What the databases hold: without a detector, align leaves images whole.
TRAIN_ON = "images" if config["align_detector"] == "none" else config["train_on"]
FOLD = fold_mark(config["fold"])
DATABASES = f"data/{dataset.name}/databases/{config['train_on']}_{config['protocol']}{FOLD}"
VOTES = ["votes.csv"] if config["ferplus"] else []
SHARDS = range(1, config["shards"] + 1) if config["shards"] > 1 else []
EXTRACT_SHARDS, ALIGN_SHARDS, LMDB_SHARDS = (
    [f"{folder}_shards/{number}_of_{len(SHARDS)}" for number in SHARDS]
    for folder in (IMAGES, ALIGNED, DATABASES)
)
EXTRACT_OPTIONS = command_options(
    config,
    *["ferplus_policy", "labels", "class_names", "classes"],
    *(["held_out", "groups", "seed"] if dataset.is_folder else []),
)
ALIGN_OPTIONS = command_options(
    config | {"detector": config["align_detector"], "detector_model": config["align_detector_model"]},
    *["detector", "detector_model", "missing"],
)
DATABASE_FILES = [f"{DATABASES}/{part}_lmdb/data.mdb" for part in ("train", "val", "test")]
# Which image each record of a database is.
LISTS = [f"{DATABASES}/{part}.txt" for part in ("train", "val", "test")]
NET = f"prototxt/{config['net']}"
NAME = f"results/{config['run'] or dataset.name}"
# Each of several seeds has a run of its own, which the wildcard names.
SEEDS = range(config["seed"], config["seed"] + config["seeds"])
RUN = f"{NAME}/seed_{{seed}}" if len(SEEDS) > 1 else NAME
# Real Caffe reads whole databases.
EVALUATE_SHARDS = (
    [f"{RUN}/evaluate_shards/{number}_of_{len(SHARDS)}" for number in SHARDS]
    if config["engine"] == "torch"
    else []
)
AVERAGED = f"{RUN}/averaged.caffemodel" if config["average"] else []
START = f"{RUN}/start.caffemodel" if config["weights"] else []
# PublicTest may choose the weights; merged leaves no set that may, so its last ones are measured.
CHOSEN = AVERAGED or f"{RUN}/{'best' if config['protocol'] == 'kaggle' else 'final'}.caffemodel"
# A run that is the second head of another trains nothing, and sees what the other saw.
HEAD_OF = config["head_of"]
if HEAD_OF:
    CHOSEN = f"{RUN}/best.caffemodel"
MEAN = f"{RUN if HEAD_OF else DATABASES}/mean.binaryproto"
TARGETS = [
    f"{RUN}/targets/{name}_lmdb/data.mdb"
    for name, setting in (("targets", "soft_targets"), ("auxiliary", "auxiliary"))
    if config[setting]
]
# InfogainLoss's matrix, where the net learns labels that are smoothed or weighed.
INFOGAIN = (
    f"{RUN}/infogain.binaryproto"
    if (config["label_smoothing"] or config["class_weights"]) and not config["soft_targets"]
    else []
)
DATA_LOGS = f"logs/data/{dataset.name}"
RUN_LOGS = f"logs/{RUN}"
EXPORTED = config["export_path"] or f"{RUN}/model"
READINGS = config["output"]


# All that is used of other runs: the files of their exported models, from where runs are kept.
OTHERS = {
    name: [path for file in MODEL_FILES if exists(path := f"results/{name}/model/{file}")]
    for name in [*(config["teacher"] or []), *(config["ensemble"] or []), *([HEAD_OF] if HEAD_OF else [])]
}


# Snakemake runs a rule again whose params have changed, but for those that are functions of its files: settings must not
# be in these.


def gather(wildcards, input):
    """An option that names the shards to put together, if there are any."""
    return ["--gather", *input.shards] if input.get("shards") else []


def one_shard(wildcards):
    """An option that names the shard to make."""
    return ["--shard", f"{wildcards.number}/{len(SHARDS)}"]


def models(names):
    """The files of other models: runs, or what ships or is named by its folder, which is on this machine."""
    return [file for name in names for file in OTHERS[name] or local(model_files(name))]


def folders(files):
    """The folders that files are in, in the files' order."""
    return list(dict.fromkeys(Path(file).parent for file in files))


def of_seeds(*files):
    """The files of every seed's run."""
    return expand(files, seed=SEEDS) if len(SEEDS) > 1 else list(files)


def remove_left_out():
    """Remove from object storage what an earlier export left there; on a disk export replaces the whole folder."""
    for job in workflow.dag.finished_jobs:
        if job.rule.name == "export":
            folder = EXPORTED.format(**job.wildcards_dict)
            for name in set(MODEL_FILES) - set(exported_files(config["export_precision"])):
                file = workflow.modifier.path_modifier.apply_default_storage(f"{folder}/{name}")
                if is_flagged(file, "storage_object") and exists(f"{folder}/{name}"):
                    async_run(file.flags["storage_object"].managed_remove())


report: "report/workflow.rst"


onstart:
    print(dataset.description)


onsuccess:
    remove_left_out()


onerror:
    remove_left_out()
    print_errors_last(log)


localrules:
    train,


rule train:
    """The whole way: trained, measured, exported; ends by naming the files worth opening."""
    default_target: True
    input:
        faces=[] if config["train_on"] == "images" else f"{ALIGNED}/contact_sheet.png",
        training=(
            []
            if HEAD_OF
            else of_seeds(*(f"{RUN}/{name}.png" for name in ("augmentation", "loss", "accuracy")))
        ),
        confusion=of_seeds(f"{RUN}/confusion.png"),
        metrics=of_seeds(f"{RUN}/metrics.json"),
        seeds=f"{NAME}/seeds.json" if len(SEEDS) > 1 else [],
        model=of_seeds(f"{EXPORTED}/MODEL_CARD.md"),
    log:
        f"logs/{NAME}/closing_words.log",
    run:
        print_closing_words(dataset, input, log[0])


rule sample:
    """Draw faces in FER2013's form, to try the pipeline without FER2013."""
    output:
        csv="data/sample/sample.csv",
        sheet=report(
            "data/sample/contact_sheet.png",
            category="Data",
            caption="report/sample.rst",
            labels={"figure": "the drawn sample"},
        ),
    log:
        f"{DATA_LOGS}/sample.log",
    benchmark:
        f"{DATA_LOGS}/sample.benchmark.tsv"
    conda:
        "environment.yml"
    params:
        options=command_options(config, "seed"),
    shell:
        "python -m pipeline --log {log} sample {output.csv} --sheet {output.sheet} {params.options:q}"


rule extract:
    """Turn the CSV into images and count them."""
    input:
        source=source(),
        ferplus=given(config["ferplus"]) if config["ferplus"] else [],
        shards=EXTRACT_SHARDS,
    output:
        manifest=f"{IMAGES}/manifest.csv",
        labels=f"{IMAGES}/labels.txt",
        summary=f"{IMAGES}/summary.json",
        votes=[f"{IMAGES}/{name}" for name in VOTES],
    log:
        f"{DATA_LOGS}/extract.log",
    benchmark:
        f"{DATA_LOGS}/extract.benchmark.tsv"
    conda:
        "environment.yml"
    threads: config["threads"]
    params:
        images=subpath(output.manifest, parent=True),
        votes=lambda wildcards, input: ["--ferplus", input.ferplus] if config["ferplus"] else [],
        options=EXTRACT_OPTIONS,
        part=gather,
        fingerprint=dataset.fingerprint(),
    shell:
        "python -m pipeline --log {log} extract {input.source:q} {params.images} {params.votes:q}"
        " {params.options:q} {params.part:q}"


if SHARDS:

    use rule extract as extract_shard with:
        input:
            source=source(),
            ferplus=given(config["ferplus"]) if config["ferplus"] else [],
        output:
            temp(directory(f"{IMAGES}_shards/{{number}}_of_{len(SHARDS)}")),
        log:
            f"{DATA_LOGS}/extract_{{number}}_of_{len(SHARDS)}.log",
        benchmark:
            f"{DATA_LOGS}/extract_{{number}}_of_{len(SHARDS)}.benchmark.tsv"
        params:
            images=lambda wildcards, output: output[0],
            votes=lambda wildcards, input: ["--ferplus", input.ferplus] if config["ferplus"] else [],
            options=EXTRACT_OPTIONS,
            part=one_shard,
            fingerprint=dataset.fingerprint(),


rule align:
    """Find the largest face in every image and align it."""
    input:
        manifest=f"{IMAGES}/manifest.csv",
        labels=f"{IMAGES}/labels.txt",
        votes=[f"{IMAGES}/{name}" for name in VOTES],
        shards=ALIGN_SHARDS,
    output:
        manifest=f"{ALIGNED}/manifest.csv",
        labels=f"{ALIGNED}/labels.txt",
        summary=f"{ALIGNED}/summary.json",
        votes=[f"{ALIGNED}/{name}" for name in VOTES],
        contact_sheet=report(
            f"{ALIGNED}/contact_sheet.png",
            category="Data",
            caption="report/contact_sheet.rst",
            labels={"figure": "faces found and aligned"},
        ),
    log:
        f"{DATA_LOGS}/align.log",
    benchmark:
        f"{DATA_LOGS}/align.benchmark.tsv"
    conda:
        "environment.yml"
    threads: config["threads"]
    params:
        aligned=subpath(output.manifest, parent=True),
        options=[] if SHARDS else ALIGN_OPTIONS,
        part=gather,
    shell:
        "python -m pipeline --log {log} align {input.manifest} {params.aligned} {params.options:q}"
        " {params.part:q} --threads {threads}"


if SHARDS:

    use rule align as align_shard with:
        input:
            manifest=f"{IMAGES}/manifest.csv",
            labels=f"{IMAGES}/labels.txt",
            votes=[f"{IMAGES}/{name}" for name in VOTES],
        output:
            temp(directory(f"{ALIGNED}_shards/{{number}}_of_{len(SHARDS)}")),
        log:
            f"{DATA_LOGS}/align_{{number}}_of_{len(SHARDS)}.log",
        benchmark:
            f"{DATA_LOGS}/align_{{number}}_of_{len(SHARDS)}.benchmark.tsv"
        params:
            aligned=lambda wildcards, output: output[0],
            options=ALIGN_OPTIONS,
            part=one_shard,


rule combine:
    """Put the whole images and the aligned faces into one manifest."""
    input:
        manifest=f"{IMAGES}/manifest.csv",
        aligned=f"{ALIGNED}/manifest.csv",
    output:
        manifest=f"data/{dataset.name}/both/manifest.csv",
        labels=f"data/{dataset.name}/both/labels.txt",
        votes=[f"data/{dataset.name}/both/{name}" for name in VOTES],
    log:
        f"{DATA_LOGS}/combine.log",
    benchmark:
        f"{DATA_LOGS}/combine.benchmark.tsv"
    conda:
        "environment.yml"
    params:
        both=subpath(output.manifest, parent=True),
    shell:
        "python -m pipeline --log {log} combine {input.manifest} {input.aligned} {params.both}"


rule lmdb:
    """Write the images into Caffe's databases, as convert_imageset does."""
    input:
        manifest=f"{FACES}/manifest.csv",
        labels=f"{FACES}/labels.txt",
        votes=[f"{FACES}/{name}" for name in VOTES],
        shards=LMDB_SHARDS,
    output:
        databases=DATABASE_FILES,
        votes=[f"{DATABASES}/{part}_{name}" for part in ("train", "val", "test") for name in VOTES],
        lists=LISTS,
        labels=f"{DATABASES}/labels.txt",
    log:
        f"{DATA_LOGS}/lmdb.log",
    benchmark:
        f"{DATA_LOGS}/lmdb.benchmark.tsv"
    conda:
        "environment.yml"
    threads: config["threads"]
    params:
        databases=subpath(output.labels, parent=True),
        options=command_options(config, "protocol", "seed", "fold"),
        part=gather,
    shell:
        "python -m pipeline --log {log} lmdb {input.manifest} {params.databases} {params.options:q} {params.part:q}"


if SHARDS:

    use rule lmdb as lmdb_shard with:
        input:
            manifest=f"{FACES}/manifest.csv",
            labels=f"{FACES}/labels.txt",
        output:
            temp(directory(f"{DATABASES}_shards/{{number}}_of_{len(SHARDS)}")),
        log:
            f"{DATA_LOGS}/lmdb_{{number}}_of_{len(SHARDS)}.log",
        benchmark:
            f"{DATA_LOGS}/lmdb_{{number}}_of_{len(SHARDS)}.benchmark.tsv"
        params:
            databases=lambda wildcards, output: output[0],
            options=command_options(config, "protocol", "seed", "fold"),
            part=one_shard,


rule mean:
    """Average the training set; every phase and serving subtract the same image."""
    input:
        f"{DATABASES}/train_lmdb/data.mdb",
    output:
        f"{DATABASES}/mean.binaryproto",
    log:
        f"{DATA_LOGS}/mean.log",
    benchmark:
        f"{DATA_LOGS}/mean.benchmark.tsv"
    conda:
        "environment.yml"
    params:
        database=subpath(input[0], parent=True),
    shell:
        "python -m pipeline --log {log} mean {params.database} {output}"


if config["teacher"]:

    rule answers:
        """Write what the teachers say of the training images."""
        input:
            teachers=lambda wildcards: models(config["teacher"]),
            databases=DATABASE_FILES,
            labels=f"{DATABASES}/labels.txt",
            manifest=f"{FACES}/manifest.csv" if config["out_of_fold"] else [],
        output:
            f"{RUN}/answers.csv",
        log:
            f"{RUN_LOGS}/answers.log",
        benchmark:
            f"{RUN_LOGS}/answers.benchmark.tsv"
        conda:
            "environment.yml"
        threads: config["threads"]
        params:
            databases=subpath(input.labels, parent=True),
            teachers=lambda wildcards, input: folders(input.teachers),
            options=["--temperature", config["teacher_temperature"], "--train-on", TRAIN_ON],
            folds=lambda wildcards, input: ["--manifest", input.manifest] if config["out_of_fold"] else [],
        shell:
            "python -m pipeline --log {log} answers {params.databases} {output} --teacher {params.teachers:q}"
            " {params.options:q} {params.folds:q} --threads {threads}"


if TARGETS:

    rule targets:
        """Write soft targets for the training images."""
        input:
            databases=DATABASE_FILES,
            lists=LISTS,
            labels=f"{DATABASES}/labels.txt",
            votes=[f"{DATABASES}/train_{name}" for name in VOTES],
            answers=f"{RUN}/answers.csv" if config["teacher"] else [],
        output:
            TARGETS,
        log:
            f"{RUN_LOGS}/targets.log",
        benchmark:
            f"{RUN_LOGS}/targets.benchmark.tsv"
        conda:
            "environment.yml"
        params:
            databases=subpath(input.labels, parent=True),
            targets=subpath(output[0], ancestor=2),
            options=command_options(config, "soft_targets", "label_smoothing", "auxiliary"),
            teacher=lambda wildcards, input: ["--teacher", input.answers] if config["teacher"] else [],
        shell:
            "python -m pipeline --log {log} targets {params.databases} {params.targets} {params.options:q}"
            " {params.teacher:q}"


rule render:
    """Fill the net's prototxts in for this run."""
    input:
        train_val=local(f"{NET}/train_val.prototxt"),
        deploy=local(f"{NET}/deploy.prototxt"),
        solver=local(f"{NET}/solver.prototxt"),
        labels=f"{DATABASES}/labels.txt",
        mean=f"{DATABASES}/mean.binaryproto",
        databases=DATABASE_FILES,
        targets=TARGETS,
        weights=local(config["weights"]) if config["weights"] else [],
    output:
        train_val=f"{RUN}/train_val.prototxt",
        deploy=f"{RUN}/deploy.prototxt",
        solver=f"{RUN}/solver.prototxt",
        augmentation=report(
            f"{RUN}/augmentation.png",
            category="Training",
            caption="report/augmentation.rst",
            labels={"figure": "what the net sees while it trains"},
        ),
        start=START,
        infogain=INFOGAIN,
    log:
        f"{RUN_LOGS}/render.log",
    benchmark:
        f"{RUN_LOGS}/render.benchmark.tsv"
    conda:
        "environment.yml"
    params:
        net=subpath(input.solver, parent=True),
        databases=subpath(input.labels, parent=True),
        run=subpath(output.solver, parent=True),
        options=lambda wildcards: command_options(
            config | dict(wildcards.items()),
            *["epochs", "batch_size", "seed", "crop_size", "mirror", "momentum", "weight_decay"],
            *["base_lr", "lr_policy", "gamma", "power", "steps", "warmup", "plateau_patience"],
            *["display", "test_interval", "snapshot", "early_stopping", "test_metric", "min_delta"],
            *["augmentation", "label_smoothing", "class_weights", "auxiliary_weight"],
            *["weights", "freeze"],
        ),
        targets=lambda wildcards, input: (["--targets", Path(input.targets[0]).parents[1]] if TARGETS else []),
    shell:
        "python -m pipeline --log {log} render {params.net} {params.databases} {params.run} {params.options:q}"
        " {params.targets:q}"


rule solve:
    """Train the net with Caffe's solver (the stage `train`); interrupted, it resumes from its last snapshot."""
    input:
        solver=f"{RUN}/solver.prototxt",
        train_val=f"{RUN}/train_val.prototxt",
        start=START,
        mean=f"{DATABASES}/mean.binaryproto",
        databases=DATABASE_FILES,
        targets=TARGETS,
        infogain=INFOGAIN,
        engine=lambda wildcards: require_engine(config),
    output:
        final=f"{RUN}/final.caffemodel",
        best=f"{RUN}/best.caffemodel",
        averaged=AVERAGED,
        loss=report(
            f"{RUN}/loss.png",
            category="Training",
            caption="report/loss.rst",
            labels={"figure": "loss"},
        ),
        accuracy=report(
            f"{RUN}/accuracy.png",
            category="Training",
            caption="report/accuracy.rst",
            labels={"figure": "accuracy"},
        ),
    log:
        f"{RUN_LOGS}/train.log",
    benchmark:
        f"{RUN_LOGS}/train.benchmark.tsv"
    conda:
        "environment.yml"
    threads: config["threads"]
    params:
        options=command_options(
            config, "device", "precision", "processes", "average", "tensorboard", "engine", "caffe"
        ),
    shell:
        "python -m pipeline --log {log} train {input.solver} {params.options:q} --threads {threads}"


if HEAD_OF:

    ruleorder: second_head > render
    ruleorder: second_head > solve

    rule second_head:
        """Make a net of its own of the second head of another run."""
        input:
            model=lambda wildcards: models([HEAD_OF]),
            labels=f"{DATABASES}/labels.txt",
        output:
            deploy=f"{RUN}/deploy.prototxt",
            weights=CHOSEN,
            mean=MEAN,
            record=f"{RUN}/run.json",
        log:
            f"{RUN_LOGS}/second_head.log",
        benchmark:
            f"{RUN_LOGS}/second_head.benchmark.tsv"
        conda:
            "environment.yml"
        params:
            head_of=lambda wildcards, input: folders(input.model),
            run=subpath(output.deploy, parent=True),
            train_on=TRAIN_ON,
        shell:
            "python -m pipeline --log {log} second_head {params.head_of:q} {input.labels} {params.run}"
            " --train-on {params.train_on}"


rule evaluate:
    """Measure the net on every held-out image, once."""
    input:
        deploy=f"{RUN}/deploy.prototxt",
        weights=CHOSEN,
        databases=DATABASE_FILES,
        lists=LISTS,
        mean=MEAN,
        labels=f"{DATABASES}/labels.txt",
        manifest=f"{FACES}/manifest.csv",
        shards=EVALUATE_SHARDS,
    output:
        metrics=f"{RUN}/metrics.json",
        confusion=report(
            f"{RUN}/confusion.png",
            category="Evaluation",
            caption="report/confusion.rst",
            labels={"figure": "confusion"},
        ),
    log:
        f"{RUN_LOGS}/evaluate.log",
    benchmark:
        f"{RUN_LOGS}/evaluate.benchmark.tsv"
    conda:
        "environment.yml"
    threads: config["threads"]
    params:
        run=subpath(input.deploy, parent=True),
        databases=subpath(input.labels, parent=True),
        options=[
            *command_options(config, "views", "tensorboard", "engine", "caffe"),
            # A second head's loss has no weights.
            *([] if HEAD_OF else command_options(config, "class_weights")),
        ],
        part=gather,
    shell:
        "python -m pipeline --log {log} evaluate {input.deploy} {input.weights} {params.run}"
        " --databases {params.databases} --mean {input.mean} --manifest {input.manifest} --threads {threads}"
        " {params.options:q} {params.part:q}"


if EVALUATE_SHARDS:

    use rule evaluate as evaluate_shard with:
        input:
            deploy=f"{RUN}/deploy.prototxt",
            weights=CHOSEN,
            databases=DATABASE_FILES,
            lists=LISTS,
            mean=MEAN,
            labels=f"{DATABASES}/labels.txt",
            manifest=f"{FACES}/manifest.csv",
        output:
            temp(directory(f"{RUN}/evaluate_shards/{{number}}_of_{len(SHARDS)}")),
        log:
            f"{RUN_LOGS}/evaluate_{{number}}_of_{len(SHARDS)}.log",
        benchmark:
            f"{RUN_LOGS}/evaluate_{{number}}_of_{len(SHARDS)}.benchmark.tsv"
        params:
            run=lambda wildcards, output: output[0],
            databases=subpath(input.labels, parent=True),
            options=command_options(config, "views"),
            part=one_shard,


if len(SEEDS) > 1:

    rule seeds:
        """Join what the runs of all seeds measured into a mean and a spread."""
        input:
            of_seeds(f"{RUN}/metrics.json"),
        output:
            f"{NAME}/seeds.json",
        log:
            f"logs/{NAME}/seeds.log",
        benchmark:
            f"logs/{NAME}/seeds.benchmark.tsv"
        conda:
            "environment.yml"
        shell:
            "python -m pipeline --log {log} seeds {output} {input}"


rule export:
    """Put the net into a self-contained model folder."""
    input:
        deploy=f"{RUN}/deploy.prototxt",
        weights=CHOSEN,
        mean=MEAN,
        labels=f"{DATABASES}/labels.txt",
        metrics=f"{RUN}/metrics.json",
        databases=DATABASE_FILES,
        record=f"{RUN}/run.json" if HEAD_OF else [],
    output:
        [f"{EXPORTED}/{name}" for name in exported_files(config["export_precision"])],
    log:
        f"{RUN_LOGS}/export.log",
    benchmark:
        f"{RUN_LOGS}/export.benchmark.tsv"
    conda:
        "environment.yml"
    params:
        model=subpath(output[0], parent=True),
        databases=subpath(input.labels, parent=True),
        run=subpath(input.deploy, parent=True),
        faces="images" if TRAIN_ON == "images" else "aligned",
        precision=config["export_precision"],
    shell:
        "python -m pipeline --log {log} export {input.deploy} {input.weights} {params.model:q}"
        " --databases {params.databases} --mean {input.mean} --metrics {input.metrics} --run {params.run}/run.json"
        " --faces {params.faces} --precision {params.precision}"


rule ensemble:
    """Join the models of several runs into one whose probabilities are their mean, and measure it."""
    input:
        models=lambda wildcards: models(members(config["ensemble"])),
        databases=DATABASE_FILES,
        lists=LISTS,
        labels=f"{DATABASES}/labels.txt",
        manifest=f"{FACES}/manifest.csv",
    output:
        metrics=f"{NAME}/ensemble/metrics.json",
        confusion=report(
            f"{NAME}/ensemble/confusion.png",
            category="Evaluation",
            caption="report/confusion.rst",
            labels={"figure": "confusion of the ensemble"},
        ),
        model=[f"{NAME}/ensemble/model/{name}" for name in ENSEMBLE_FILES],
    log:
        f"logs/{NAME}/ensemble.log",
    benchmark:
        f"logs/{NAME}/ensemble.benchmark.tsv"
    conda:
        "environment.yml"
    params:
        output=subpath(output.metrics, parent=True),
        databases=subpath(input.labels, parent=True),
        models=lambda wildcards, input: folders(input.models),
        options=["--train-on", TRAIN_ON, *command_options(config, "views")],
    shell:
        "python -m pipeline --log {log} ensemble {params.output} {params.models:q} --databases {params.databases}"
        " --manifest {input.manifest} {params.options:q}"


rule predict:
    """Read the expressions in images, a video, a camera or a stream with a model folder."""
    input:
        models=local(model_files(config["model"])),
        files=lambda wildcards: [local(file) for file in parse_input(config["input"]).files],
    output:
        lines=f"{READINGS}/predictions.jsonl",
        table=f"{READINGS}/predictions.csv",
    log:
        "logs/predict.log",
    benchmark:
        "logs/predict.benchmark.tsv"
    conda:
        "environment.yml"
    threads: config["threads"]
    params:
        word=lambda wildcards: parse_input(config["input"]).word,
        again=lambda wildcards: parse_input(config["input"]).again,
        annotated=lambda wildcards: parse_input(config["input"]).annotated(READINGS),
        summary=["--summary", f"{READINGS}/summary.png"] if config["summary"] else [],
        options=command_options(
            config,
            "model",
            "detector",
            "detector_model",
            "min_face",
            "uncertain",
            "class_prior",
            "views",
            "providers",
            "no_face",
            "every",
            "rotations",
            "faces",
            "draw",
            "blur",
            "window",
        ),
    shell:
        "python -m pipeline --log {log} predict --threads {threads} --json {output.lines:q}"
        " --csv {output.table:q} {params.annotated:q} {params.summary:q} {params.options:q} -- {params.word:q}"
