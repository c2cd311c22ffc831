"""BioC, brat, inline marks and JSON lines: what is taken, what is counted, what is an error."""

import gzip
import json
import zipfile
from pathlib import Path

import pytest

from spacy_nerllama.corpora import (
    FORMATS,
    Document,
    Mention,
    Passage,
    detect_format,
    read_bioc,
    read_brat,
    read_corpus,
    read_iob,
    read_jsonl,
    read_mark,
)

SAMPLES = Path(__file__).parent / "corpora"


def write(path: Path, content: str) -> Path:
    path.write_bytes(content.encode())
    return path


def test_bioc_xml() -> None:
    first, second = read_bioc(SAMPLES / "corpus.xml")
    assert first == Document(
        "101",
        "Naproxen & β-thalassaemia. Breast and ovarian cancer, and pain.",
        (
            Mention(0, 8, "Chemical", "Naproxen"),
            Mention(11, 25, "Disease", "β-thalassaemia"),
            Mention(58, 62, "Disease", "pain"),
        ),
        passages=(Passage(0, 26, 0, "title"), Passage(27, 63, 40, "abstract")),
        discontinuous=1,
        unplaced=1,
    )
    assert (second.text, second.mentions) == ("Ataxia. No more.", (Mention(0, 6, "Disease", "Ataxia"),))


def test_bioc_json_is_a_collection_a_list_a_document_or_documents_in_lines(tmp_path: Path) -> None:
    collection = json.loads((SAMPLES / "corpus.json").read_text("utf8"))
    expected = list(read_bioc(SAMPLES / "corpus.json"))
    assert [(d.id, d.text, len(d.mentions)) for d in expected] == [
        ("101", "Naproxen for β-thalassaemia. Nothing.", 2),
        ("102", "", 0),
    ]
    documents = collection["documents"]
    for content in (
        json.dumps(documents),
        json.dumps({"PubTator3": documents}),
        "\n".join(map(json.dumps, documents)),
        json.dumps({"documents": documents, "key": "the list may come first"}),
    ):
        assert list(read_corpus(write(tmp_path / "a.json", content))) == expected
    assert list(read_corpus(write(tmp_path / "a.json", json.dumps(documents[0], indent=1)))) == expected[:1]


def test_a_long_bioc_file_is_a_stream(tmp_path: Path) -> None:
    passage = {"offset": 0, "infons": {}, "text": "Ataxia. " * 20_000, "annotations": []}
    documents = [{"id": i, "passages": [passage]} for i in range(3)]
    path = write(tmp_path / "a.json", json.dumps({"documents": documents}) + "rest")
    stream = read_bioc(path)
    assert [next(stream).id for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(ValueError, match="NL115"):
        next(stream)


XML = "<collection><document><id>1</id><passage><offset>0</offset><text>Ataxia &lt;</text>{}</passage></document>"
ANNOTATION = (
    '<annotation id="T1"><infon key="type">D</infon><location offset="{}" length="{}"/>'
    "<text>{}</text></annotation>"
)
LAUGH = '<!DOCTYPE c [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><collection>&b;</collection>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LAUGH, r"NL121.*a\.xml, line 1 .*entities"),
        (XML.format(""), r"NL121.*a\.xml, line 1 .*no element found"),
        ("<document>" * 99, "NL121.*deep"),
        ("<?xml version='1.0' encoding='nonsense'?><a/>", "NL121"),
        (XML.replace("<id>1</id>", "").format("") + "</collection>", r"NL117.*from line 1.*an id"),
        (XML.replace("<offset>0", "<offset>x").format("") + "</collection>", r"NL117.*passage 1.*an offset"),
        (XML.format(ANNOTATION.format("x", 6, "Ataxia")) + "</collection>", r"NL117.*annotation T1.*locations"),
        (XML.format(ANNOTATION.format(7, 3, "Ataxia")) + "</collection>", r"NL130.*document 1 .*annotation T1"),
        (XML.format(ANNOTATION.format(70, 6, "Ataxia")) + "</collection>", r"NL130.*annotation T1"),
        (XML.format('<annotation id="T1"><location offset="0" length="6"/><text>Ataxia</text></annotation>')
         + "</collection>", r"NL109.*annotation T1"),
        ('{"documents": [{"id": 1, "passages": 5}]}', r"NL117.*document 1 \(from line 1\).*passages"),
        ('{"documents":\n [{"id": 1},\n {"id": nothing}]}', r"NL115.*line 3 "),
        ('{"documents": [', "NL115"),
        ('{"documents": [] "key": 1}', r"NL115.*expected , or }"),
        ("[" * 100_000, "NL115"),
        ('{"documents": [{"id": 1' + "0" * 5000 + "}]}", "NL115"),
    ],
)  # fmt: skip
def test_broken_bioc_is_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(read_corpus(write(tmp_path / "a.xml", content), "bioc"))


def test_xml_of_something_else_or_with_unknown_entities_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"NL121.*root is <set>"):
        list(read_bioc(write(tmp_path / "a.xml", "<set><article/></set>")))
    head = '<!DOCTYPE collection SYSTEM "BioC.dtd">'
    content = XML.replace("<collection>", f"{head}<collection>", 1).format("") + "</collection>"
    assert list(read_bioc(write(tmp_path / "b.xml", content)))
    with pytest.raises(ValueError, match=r"NL121.*entity &alpha;"):
        list(read_bioc(write(tmp_path / "b.xml", content.replace("</text>", "&alpha;</text>", 1))))


def test_bioc_annotations_may_give_no_text(tmp_path: Path) -> None:
    content = XML.format(ANNOTATION.format(0, 6, "Ataxia")) + "</collection>"
    expected = [document.mentions for document in read_bioc(write(tmp_path / "a.xml", content))]
    bare = content.replace("<text>Ataxia</text>", "")
    assert bare != content
    assert [document.mentions for document in read_bioc(write(tmp_path / "a.xml", bare))] == expected


def test_brat_pairs_in_a_folder_or_alone() -> None:
    first, second = read_brat(SAMPLES / "brat")
    assert first == Document(
        "one",
        "Breast and ovarian\ncancer, and pain.\n",
        (Mention(11, 25, "Disease", "ovarian\ncancer"), Mention(31, 35, "Disease", "pain")),
        discontinuous=1,
    )
    assert (second.id, second.text, second.mentions) == ("two", "No mention here.", ())
    for name in ("one.txt", "one.ann"):
        assert list(read_corpus(SAMPLES / "brat" / name)) == [first]


@pytest.mark.parametrize("mention", ["4 10\tataxia", "3 9\tataxia"])
def test_brat_offsets_may_not_count_carriage_returns(tmp_path: Path, mention: str) -> None:
    """They are corrected where a word is near, but none is after some lines."""
    text = "An\nataxia.\n" if mention[0] == "3" else "An\r\nataxia.\r\n"
    write(tmp_path / "a.txt", "An\r\nataxia.\r\n")
    write(tmp_path / "a.ann", f"T1\tDisease {mention}\r\n")
    (document,) = read_brat(tmp_path)
    assert (document.text, document.corrected) == (text, 0)
    write(tmp_path / "a.txt", "\r\n" * 20 + "An ataxia.")
    write(tmp_path / "a.ann", "T1\tDisease 23 29\tataxia\n")
    (document,) = read_brat(tmp_path)
    assert document.mentions == (Mention(23, 29, "Disease", "ataxia"),)


def test_bioc_annotations_of_a_passage_that_has_its_text_in_sentences(tmp_path: Path) -> None:
    sentences = [{"offset": 0, "text": "An ataxia."}, {"offset": 12, "text": "A cancer."}]
    annotations = [
        {"id": "1", "infons": {"type": "X"}, "text": text, "locations": [{"offset": offset, "length": 6}]}
        for text, offset in (("ataxia", 3), ("cancer", 14))
    ]
    passage = {"offset": 0, "text": "", "sentences": sentences, "annotations": annotations}
    content = json.dumps({"documents": [{"id": "1", "passages": [passage]}]})
    (document,) = read_bioc(write(tmp_path / "a.json", content))
    assert document.text == "An ataxia. A cancer."
    assert [(m.start, m.text) for m in document.mentions] == [(3, "ataxia"), (13, "cancer")]


def test_bioc_json_may_be_a_list_of_collections(tmp_path: Path) -> None:
    collections = [
        {
            "source": "PMC",
            "documents": [{"id": id_, "passages": [{"offset": 0, "text": "Ataxia."}]} for id_ in ids],
        }
        for ids in ("ab", "c")
    ]
    documents = list(read_corpus(write(tmp_path / "a.json", json.dumps(collections))))
    assert [document.id for document in documents] == ["a", "b", "c"]


def test_bioc_xml_may_have_comments_before_its_type(tmp_path: Path) -> None:
    head = '<?xml version="1.0"?>\n<!-- of ours -->\n<!DOCTYPE collection SYSTEM "BioC.dtd">\n'
    assert detect_format(write(tmp_path / "a", f"{head}<collection></collection>")) == "bioc"


def test_brat_offsets_count_carriage_returns(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "An\r\nataxia.\r\n")
    write(tmp_path / "a.ann", "T1\tDisease 4 10\tataxia\r\n")
    (document,) = read_brat(tmp_path)
    assert document.mentions == (Mention(4, 10, "Disease", "ataxia"),)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("T1 Disease 0 6 Ataxia", r"NL120.*a\.ann, line 2"),
        ("T1\tDisease 0\tAtaxia", r"NL120.*a\.ann, line 2"),
        ("T1\tDisease 0 6", r"NL120.*a\.ann, line 2"),
        ("Ataxia", r"NL120.*a\.ann, line 2"),
        ("T1\tDisease 7 9\tAtaxia", r"NL102.*a\.ann, line 2"),
        ("T1\tDisease 0 99\tAtaxia", r"NL130.*a\.ann, line 2"),
        ("T1\tDisease 6 0\tAtaxia", r"NL130.*a\.ann, line 2"),
    ],
)
def test_broken_brat_is_named(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path / "a.txt", "Ataxia is rare.")
    path = write(tmp_path / "a.ann", f"#1\tAnnotatorNotes\tnote\n{line}\n")
    with pytest.raises(ValueError, match=message):
        list(read_corpus(path, "brat"))
    path.with_suffix(".txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"NL118.*a\.txt"):
        list(read_brat(path))


def test_marks_are_taken_out_and_nothing_else() -> None:
    first, second = read_mark(SAMPLES / "corpus.mark", "GENE")
    assert (first.text, first.mentions) == (
        "Loss of KCNH2 in <i>mice</i> & men.",
        (Mention(8, 13, "GENE", "KCNH2"),),
    )
    assert [second.text[m.start : m.end] for m in second.mentions] == ["β-actin", "not"]
    assert [first.id, second.id] == ["corpus-1", "corpus-3"], "by their lines"


@pytest.mark.parametrize(
    "line", ["a <mark>b", "a b</mark>", "<mark>a <mark>b</mark></mark>", "<mark></mark>", "<mark> </mark>"]
)
def test_broken_marks_are_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a.txt", f"fine\n{line}\n")
    with pytest.raises(ValueError, match=r"NL116.*a\.txt, line 2"):
        list(read_mark(path, "GENE"))
    with pytest.raises(ValueError, match=r"NL109.*a\.txt, line 1.*--label"):
        list(read_mark(path))


def test_jsonl_as_prodigy_writes_it() -> None:
    first, second, third = read_jsonl(SAMPLES / "corpus.jsonl", "DISEASE")
    assert (first.id, first.mentions) == ("5", (Mention(0, 7, "CHEMICAL", "Aspirin"),))
    assert (second.id, second.text, second.answer) == ("corpus-2", "Nothing 😀 here.", "reject")
    assert third.mentions == (Mention(0, 6, "DISEASE", "Ataxia"),)


@pytest.mark.parametrize("key", ["entities", "label", "labels"])
def test_jsonl_as_doccano_and_spacy_2_write_it(tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "a.jsonl", f'{{"text": "ATM loss", "{key}": [[0, 3, "GENE"]]}}\n{{"text": "No."}}\n')
    first, second = read_corpus(path)
    assert first.mentions == (Mention(0, 3, "GENE", "ATM"),)
    assert second.mentions == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "ATM loss", "entities": [{"id": 1, "label": "GENE", "start_offset": 0, "end_offset": 3}]},
        {"text": "ATM loss", "label": [{"start": 0.0, "end": 3.0, "label": "GENE"}], "relations": []},
        {"data": "ATM loss", "label": [[0, 3, "GENE"]]},
        {"text": "ATM loss", "answer": None, "spans": [{"start": 0, "end": 3, "type": "GENE"}]},
        {"text": "ATM loss", "spans": [{"start": 0, "end": 3, "label": "GENE", "text": "ATM"}]},
    ],
)
def test_jsonl_of_other_tools(tmp_path: Path, fields: dict) -> None:
    (document,) = read_corpus(write(tmp_path / "a.jsonl", json.dumps(fields)))
    assert document.mentions == (Mention(0, 3, "GENE", "ATM"),)
    assert document.corrected == 0


def test_jsonl_whose_offsets_count_otherwise_is_corrected_by_its_texts(tmp_path: Path) -> None:
    """JavaScript counts two for what is beyond the basic plane, and an editor may have counted bytes."""
    text = "𝛼𝛽 ATM and p53"
    spans = [{"start": 5, "end": 8, "label": "GENE", "text": "ATM"}, {"start": 13, "end": 16, "label": "GENE"}]
    spans[1] |= {"text": "p53"}
    (document,) = read_corpus(write(tmp_path / "a.jsonl", json.dumps({"text": text, "spans": spans})))
    assert [mention.text for mention in document.mentions] == ["ATM", "p53"]
    assert document.corrected == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"spans": [], "label": "positive"},
        {"spans": [], "entities": [[0, 3, "GENE"]]},
        {"entities": [], "label": [], "labels": None},
        {"label": "positive"},
        {"labels": ["positive", "short"]},
    ],
)
def test_jsonl_where_spans_or_nothing_say_that_there_is_no_mention(tmp_path: Path, fields: dict) -> None:
    (document,) = read_jsonl(write(tmp_path / "a.jsonl", json.dumps({"text": "ATM loss", **fields})))
    assert document.mentions == ()


def test_a_list_of_objects_is_read_as_json_lines_are(tmp_path: Path) -> None:
    objects = [
        {"text": "ATM loss", "spans": [{"start": 0, "end": 3, "label": "GENE"}]},
        {"id": "mine", "text": "Ataxia", "entities": [[0, 6, "DISEASE"]]},
    ]
    for indent in (None, 2):
        first, second = read_corpus(write(tmp_path / "a.json", json.dumps(objects, indent=indent)))
        assert (first.id, first.mentions) == ("a-1", (Mention(0, 3, "GENE", "ATM"),))
        assert (second.id, second.mentions) == ("mine", (Mention(0, 6, "DISEASE", "Ataxia"),))
    objects[1]["entities"] = [[0, 60, "DISEASE"]]
    with pytest.raises(ValueError, match=r"NL130.*a\.json, object 2 \(line 1\)"):
        list(read_corpus(write(tmp_path / "a.json", json.dumps(objects))))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "NL115"),
        ("[" * 100_000, "NL115"),
        ("[]", "NL117.*a text"),
        ('{"spans": []}', "NL117.*a text"),
        (r'{"text": "\ud83d"}', "NL117.*a text"),
        ('{"text": "a", "answer": "maybe"}', "NL117.*an answer"),
        ('{"text": "a", "answer": []}', "NL117.*an answer"),
        ('{"text": "a", "spans": {}}', None),
        ('{"text": "a", "spans": {"start": 0}}', "NL117.*a list of spans"),
        ('{"text": "a", "spans": [1]}', "NL117.*objects"),
        ('{"text": "a", "label": [[0, 1]]}', r"NL117.*'label' to be a list of \[start, end, label\]"),
        ('{"text": "a", "entities": [{"start": 0, "end": 1}]}', r"NL109.*0 to 1 \(start, end\)"),
        ('{"text": "a", "entities": [[0, 1]]}', "NL117.*'entities' to be"),
        ('{"text": "a", "entities": [[0, 1, null]]}', "NL109"),
        ('{"text": "a", "entities": [[0, 9, "X"]]}', "NL130"),
        ('{"text": "a", "spans": [{"start": 0, "end": 1}]}', "NL109"),
        ('{"text": "a", "spans": [{"start": 0, "end": 1.5, "label": "X"}]}', "NL117.*start, end and label"),
        ('{"text": "a", "spans": [{"start": 0, "end": 9, "label": "X"}]}', "NL130"),
        ('{"text": "a ", "spans": [{"start": 1, "end": 2, "label": "X"}]}', "NL130.*1 to 2.*white space"),
        ('{"text": "Ataxia", "spans": [{"start": 6, "end": 0, "label": "X"}]}', "NL130.*6 to 0.*reversed"),
        ('{"text": "Ataxia", "spans": [{"start": 3, "end": 3, "label": "X"}]}', "NL130.*3 to 3.*empty"),
    ],
)
def test_broken_jsonl_is_named(tmp_path: Path, line: str, message: str | None) -> None:
    path = write(tmp_path / "a.jsonl", f'{{"text": "fine"}}\n\n{line}\n')
    if message is None:
        assert len(list(read_jsonl(path))) == 2, "an empty object is no spans"
    else:
        with pytest.raises(ValueError, match=rf"{message[:5]}.*a\.jsonl, line 3.*{message[7:]}"):
            list(read_corpus(path, "jsonl"))


def test_iob_columns_may_be_others(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conll", "1 Ataxia NN B-D x\n2 is VB O x\n\n1 None NN O x\n")
    first, second = read_iob(path, columns=(1, -2), separator=None)
    assert (first.text, first.mentions) == ("Ataxia is", (Mention(0, 6, "D", "Ataxia"),))
    assert second.text == "None"
    with pytest.raises(ValueError, match=r"NL108.*a\.conll, line 1"):
        list(read_iob(path, columns=(1, 7), separator=None))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "\ufeff\n1|t|Title\n", "pubtator"),
        ("a.xml", "<?xml version='1.0'?><!DOCTYPE collection SYSTEM 'BioC.dtd'>\n<collection/>", "bioc"),
        ("a", '[\n {"id": 1, "passages": []}]', "bioc"),
        ("a.json", '{"text": "the \\"passages\\": of a text"}', "jsonl"),
        ("a.json", '[\n {\n  "text": "the \\"passages\\": of a text"}]', "jsonl"),
        ("a.json", '[{"text": "' + "long " * 20_000 + '"}]', "jsonl"),
        ("a.tsv", "-DOCSTART-\tO\n\nAtaxia\tNN\tB\n", "iob"),
        ("a.tsv", "Ataxia\n", None),
        ("a.txt", "A <mark>gene</mark>.\n", "mark"),
        ("a.html", "<p>Nothing</p>", None),
        ("a.txt", "", None),
    ],
)
def test_formats_are_recognised(tmp_path: Path, name: str, content: str, expected: str | None) -> None:
    path = write(tmp_path / name, content)
    if expected is None:
        with pytest.raises(ValueError, match=r"NL125.*--format"):
            detect_format(path)
    else:
        assert detect_format(path) == expected


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_xml_may_be_utf_16_and_nothing_else(tmp_path: Path, order: str) -> None:
    path = tmp_path / "a.xml"
    xml = XML.format(ANNOTATION.format(0, 6, "Ataxia")) + "</collection>"
    for head in ("", "<?xml version='1.0' encoding='UTF-16'?>\n"):
        path.write_bytes(f"\ufeff{head}{xml}".encode(order))
        assert [mention.text for document in read_corpus(path) for mention in document.mentions] == ["Ataxia"]
    for text in (
        "1|t|Ataxia\n",
        "Ataxia\tB-D\n",
        '{"text": "Ataxia"}',
        '[{"text": "Ataxia"}]',
        '[{"passages": []}]',
    ):
        path.write_bytes(f"\ufeff{text}".encode(order))
        with pytest.raises(ValueError, match="NL100.*line 1.*UTF-16.*iconv"):
            list(read_corpus(path))


@pytest.mark.parametrize("format", [each for each in FORMATS if each not in ("hf", "bc2gm")])
def test_what_is_compressed_is_to_be_unpacked(tmp_path: Path, format: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(gzip.compress(b"1|t|Ataxia\n"))
    (tmp_path / "a.ann").touch()
    with pytest.raises(ValueError, match=r"NL131.*a\.txt is compressed.*gunzip"):
        list(read_corpus(path, format, label="GENE"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("corpus.txt", "1|t|Ataxia\n")
    with pytest.raises(ValueError, match="NL131.*unzip"):
        list(read_corpus(path, format, label="GENE"))


def test_what_could_be_several_formats_is_not_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "1|t|About <mark> in HTML\n")
    with pytest.raises(ValueError, match=r"NL126.*pubtator, mark"):
        read_corpus(path)
    assert [document.text for document in read_corpus(path, "pubtator")] == ["About <mark> in HTML"]
    with pytest.raises(FileNotFoundError, match="NL111"):
        read_corpus(tmp_path / "missing.txt")
    with pytest.raises(ValueError, match="NL125"):
        read_corpus(tmp_path)
