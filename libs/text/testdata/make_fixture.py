"""Writes tokenizer.json, tokenizer_config.json and generation_config.json of this folder, and golden.json.

Needs the `tokenizers` package. The vocabulary is small (474) and trained on the text below,
so that multi-byte characters split over tokens. golden.json holds what the reference library makes of
some texts: the tests compare ours with it.
"""

import json
import pathlib

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent
CORPUS = [
    "The router adds the rows in the order of the token's expert slots, never in order of arrival.",
    "A shard is a process, a replica is one copy of one expert on a shard, a peer is a transport end.",
    "Every parser refuses what it does not know, and every limit has a name and a metric.",
    "Grüße aus Köln, ça va très bien, привет, 你好世界, こんにちは.",
    "for (int i = 0; i < 64; ++i) { sum += rows[i] * scale; }  // 1234567890",
] * 4
ADDED = [
    ("<|begin|>", True),
    ("<|end|>", True),
    ("<|User|>", False),
    ("<|Assistant|>", False),
    ("<think>", False),
]
TEXTS = [
    "",
    "The router adds the rows.",
    "<|begin|><|User|>hello<|Assistant|><think>hm<|end|>",
    "Köln 😀 👩‍👩‍👧 你好 \u0000 \t  trailing  ",
    "a <|en d|> b <think",
]
TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n' }}"
    "{% elif message['role'] == 'user' %}{{ '<|User|>' + message['content'] | trim }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<|Assistant|>' + (message['content'] or '') + eos_token }}"
    "{% else %}{{ raise_exception('Only system, user and assistant roles are supported.') }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|>' }}{% if enable_thinking %}{{ '<think>' }}{% endif %}{% endif %}"
)


def write(name: str, value: object) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=False)
    (HERE / name).write_text(text + "\n", encoding="utf-8")


def main() -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    for text, special in ADDED:
        token = AddedToken(text, special=special, normalized=False)
        if special:
            tokenizer.add_special_tokens([token])
        else:
            tokenizer.add_tokens([token])
    begin = tokenizer.token_to_id("<|begin|>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", begin)]
    )
    tokenizer.save(str(HERE / "tokenizer.json"), pretty=False)
    write(
        "tokenizer_config.json",
        {
            "bos_token": "<|begin|>",
            "eos_token": {"__type": "AddedToken", "content": "<|end|>"},
            "chat_template": TEMPLATE,
        },
    )
    end = tokenizer.token_to_id("<|end|>")
    write("generation_config.json", {"bos_token_id": begin, "eos_token_id": [end, begin], "temperature": 0.6})
    golden = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        golden.append(
            {
                "text": text,
                "ids": ids,
                "ids_bare": tokenizer.encode(text, add_special_tokens=False).ids,
                "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            }
        )
    write("golden.json", {"vocab_size": tokenizer.get_vocab_size(), "cases": golden})


if __name__ == "__main__":
    main()
