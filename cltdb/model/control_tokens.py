"""Control tokens that are written out in a text, such as `<|endoftext|>`: ordinary text, unless the caller asks for the tokens.

A tokenizer turns such a string into the control token wherever it meets it. Hugging Face's `split_special_tokens` prevents this, except
where the string is also an entry of the vocabulary that a word-level or unigram model may choose. `as_text` cuts the string in two there.
"""

import re


def strings(tokenizer):
    """{id: string} of the tokenizer's control tokens. Without the one for unknown words, which ordinary text has too, unless it is BOS or end of text
    as well, as GPT-2's is, which spells unknown words."""
    found = {token: str(added) for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    found |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
    unknown = {tokenizer.unk_token_id} - {tokenizer.bos_token_id, tokenizer.eos_token_id}
    return {token: string for token, string in found.items() if token not in unknown and string}


def as_text(tokenizer, text):
    """Token ids of a text, or a list of them for a list of texts. A control token that is written out becomes ordinary tokens."""
    if isinstance(text, str):
        return as_text(tokenizer, [text])[0]
    every, control = _split(tokenizer, text), strings(tokenizer)
    if not control:
        return every
    written = _written(control.values())
    for place, tokens in enumerate(every):
        if not control.keys().isdisjoint(tokens) and written.search(text[place]):
            every[place] = sum(_split(tokenizer, _cut(text[place], written)), [])
    return every


def _written(strings):
    """A regular expression that finds any of these strings."""
    return re.compile("|".join(re.escape(string) for string in sorted(strings, key=len, reverse=True)))


def _cut(text, written):
    """The pieces of a text that has every control token cut after its first character."""
    cuts = [0, *(match.start() + 1 for match in written.finditer(text)), len(text)]
    return [text[start:stop] for start, stop in zip(cuts, cuts[1:], strict=False) if start < stop]


def _split(tokenizer, texts):
    if not texts:
        return []
    return tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]


def without_front(text, string):
    """The text without `string` at its front, as often as it stands there."""
    while text.startswith(string):
        text = text[len(string) :]
    return text


# Chats: their template writes control tokens, their messages do not.


def chat_tokens(lm, messages):
    """Token ids of a chat through the tokenizer's template, with one BOS. A control token that is written out in a message is text,
    unless lm.special_tokens_in_text."""
    tokenizer = lm.tokenizer
    marks, marked = ("", ""), messages
    if not lm.special_tokens_in_text:
        marks, marked = _marked(tokenizer, messages)
    text = tokenizer.apply_chat_template(marked, tokenize=False, add_generation_prompt=True)
    if marked == messages:
        return lm.prompt_tokens(text, special=True)
    tokens = []
    for number, part in enumerate(re.split("[" + "".join(marks) + "]", text)):
        if part:  # every other part stood in a message
            tokens += lm.text_tokens(part, special=number % 2 == 0)
    return lm.prompt_of(tokens, text)


def _marked(tokenizer, messages):
    """((begin, end), messages). begin, end: two characters that stand in no message; they now enclose every control token that is
    written out in one."""
    known = "".join(value for message in messages for value in message.values())
    unused = (chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in known)
    marks = next(unused), next(unused)
    control = strings(tokenizer).values()
    if not control:
        return marks, messages
    written = _written(control)
    mark = lambda value: written.sub(lambda match: match[0].join(marks), value)  # noqa: E731
    return marks, [{key: mark(value) for key, value in message.items()} for message in messages]
