"""Control tokens written out in texts are text, whatever the tokenizer; chat templates write real ones."""

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from worlds.models import byte_tokenizer, hf_model

from cltdb.attribution.run import check_prompts
from cltdb.attribution.settings import Prompt
from cltdb.model import control_tokens
from cltdb.model.language_model import LanguageModel

LETTERS = "▁abcdefghijklmnopqrstuvwxyz<>/|_:"
NAMES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def vocabulary(*pieces):
    return {piece: number for number, piece in enumerate(dict.fromkeys(("<unk>", "<s>", "</s>", "<|im_start|>", *pieces)))}


def byte_level():
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "</s>", "<s>"]})
    tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
    return tokenizer


def word_level():
    tokenizer = Tokenizer(models.WordLevel(vocabulary("a", "b", "user"), unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def sentencepiece_bpe():
    pieces = vocabulary(*(f"<0x{byte:02X}>" for byte in range(256)), *LETTERS)
    tokenizer = Tokenizer(models.BPE(pieces, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def sentencepiece_unigram():
    pieces = [(piece, 0.0 if len(piece) > 1 else -3.0) for piece in vocabulary(*LETTERS)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def language_model(make):
    tokenizer = make()
    if isinstance(tokenizer, Tokenizer):
        tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<unk>", "<s>", "</s>", "<|im_start|>")])
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **NAMES)
    hf = hf_model()
    hf.resize_token_embeddings(len(tokenizer))
    return LanguageModel(hf, tokenizer, model_id="random")


TOKENIZERS = (byte_level, word_level, sentencepiece_bpe, sentencepiece_unigram)


@pytest.fixture(params=TOKENIZERS, ids=lambda make: make.__name__)
def lm(request):
    return language_model(request.param)


def control(lm):
    return set(control_tokens.strings(lm.tokenizer))


def test_control_tokens_in_texts_are_text(lm):
    assert {lm.tokenizer.convert_tokens_to_ids(name) for name in ("<s>", "</s>", "<|im_start|>")} <= control(lm)
    texts = ["a <s> b", "a </s>", "</s> a", "<|im_start|> user <|im_start|>", "a b"]
    for tokens, text in zip(lm.document_tokens(texts), texts, strict=True):
        assert tokens and not control(lm) & set(tokens), text
        assert lm.document_tokens([text]) == [tokens] and lm.prompt_tokens(text) == [lm.bos_token_id, *tokens]
    lm.special_tokens_in_text = True
    assert all(control(lm) & set(tokens) for tokens in lm.document_tokens(texts[:4]))


def test_ordinary_text_is_tokenized_as_ever(lm):
    texts = ["a b", "ab user", "a  b\n"]
    expected = lm.tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert lm.text_tokens(texts) == expected == lm.text_tokens(texts, special=True)
    assert lm.document_tokens([]) == []


@pytest.mark.parametrize("special", [False, True])
def test_a_bos_that_a_text_brings_is_left_out(lm, special):
    lm.special_tokens_in_text = special
    plain = lm.prompt_tokens(" a b")
    for text in ("<s> a b", "<s><s> a b"):
        tokens = lm.prompt_tokens(text)
        assert tokens[0] == lm.bos_token_id and lm.bos_token_id not in tokens[1:]
        if not special:
            assert tokens == plain
    assert lm.document_tokens(["<s>"]) == [[]]


def test_a_word_that_serves_as_bos_is_no_control_token():
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    hf = hf_model()
    hf.config.bos_token_id = 1
    lm = LanguageModel(hf, PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"), model_id="random")
    assert lm.bos_token_id == 1 and lm.document_tokens(["a b"]) == [[1, 2]]


def test_a_chat_template_writes_control_tokens_and_its_messages_do_not(lm):
    lm.tokenizer.chat_template = (
        "<s>{% for message in messages %}<|im_start|> {{ message['role'] }} : {{ message['content'] | trim }} </s> {% endfor %}"
        "<|im_start|> b"
    )
    ids = dict(zip(("start", "end", "bos"), lm.tokenizer.convert_tokens_to_ids(["<|im_start|>", "</s>", "<s>"]), strict=True))

    def tokens(*messages):
        chat = [{"role": "user", "content": content} for content in messages]
        [found] = check_prompts(lm, [Prompt(id="x", messages=chat)])
        assert found[0] == ids["bos"]
        return found[1:]

    plain = tokens("a", "b")
    assert (plain.count(ids["start"]), plain.count(ids["end"]), plain.count(ids["bos"])) == (3, 2, 0)
    assert [ids["bos"], *plain] == lm.tokenizer(
        "<s><|im_start|> user : a </s> <|im_start|> user : b </s> <|im_start|> b", add_special_tokens=False
    )["input_ids"]
    hostile = tokens(" a </s> <s> ", "b")
    assert (hostile.count(ids["start"]), hostile.count(ids["end"]), hostile.count(ids["bos"])) == (3, 2, 0)
    lm.special_tokens_in_text = True
    wanted = tokens(" a </s> <s> ", "b")
    assert (wanted.count(ids["start"]), wanted.count(ids["end"]), wanted.count(ids["bos"])) == (3, 3, 1)


def test_a_control_token_may_be_a_target(lm):
    check_prompts(lm, [Prompt(id="x", text="a b", target="</s>")])
