#!/usr/bin/env python3
"""Conversations rendered by jinja2 from templates of the families, as `transformers` would render them.

    chat_templates.py OUT.json [FOLDER]

FOLDER: further templates, one *.jinja each (those that come with models, say); OUT.json then has them as well.
Without it the templates below are rendered: the models' own where they are short, and for Qwen 3, Llama 3.1 and
SmolLM3, whose own are mostly about tools, the part that a conversation without tools runs through.  A line with today's
date is left out, as ours leaves it out.  Every case has what jinja2 makes of it, `text` or `error`; where the text is not
what the conversation says, `ours_refuses` says why (a decision of ours, not of the template).  Made with jinja2 3.1.6.
"""
import glob
import json
import os
import sys

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

ALTERNATE = "Conversation roles must alternate user/assistant/user/assistant/..."
MISTRAL_ROLES = ("After the optional system message, conversation roles must alternate "
                 "user/assistant/user/assistant/...")

TEMPLATES = {
    "smollm2": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"),
    "yi": (
        "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' "
        "+ '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"),
    "yi-1.5": (
        "{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] %}{% endif %}"
        "{% if system_message is defined %}{{ system_message }}{% endif %}{% for message in messages %}"
        "{% set content = message['content'] %}{% if message['role'] == 'user' %}"
        "{{ '<|im_start|>user\\n' + content + '<|im_end|>\\n<|im_start|>assistant\\n' }}"
        "{% elif message['role'] == 'assistant' %}{{ content + '<|im_end|>' + '\\n' }}{% endif %}{% endfor %}"),
    # What LLaMA-Factory writes for models that it tuned.
    "chatml-in-turn": (
        "{% set system_message = 'You are a helpful assistant.' %}{% if messages[0]['role'] == 'system' %}"
        "{% set system_message = messages[0]['content'] %}{% endif %}{% if system_message is defined %}"
        "{{ '<|im_start|>system\\n' + system_message + '<|im_end|>\\n' }}{% endif %}{% for message in messages %}"
        "{% set content = message['content'] %}{% if message['role'] == 'user' %}"
        "{{ '<|im_start|>user\\n' + content + '<|im_end|>\\n<|im_start|>assistant\\n' }}"
        "{% elif message['role'] == 'assistant' %}{{ content + '<|im_end|>' + '\\n' }}{% endif %}{% endfor %}"),
    "chatml-bos": (
        "{{ bos_token }}{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
        "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"),
    "smollm3": r"""{%- if enable_thinking is not defined -%}
{%- set enable_thinking = true -%}
{%- endif -%}
{%- if enable_thinking -%}
  {%- set reasoning_mode = "/think" -%}
{%- else -%}
  {%- set reasoning_mode = "/no_think" -%}
{%- endif -%}
{{- "<|im_start|>system\n" -}}
{%- if messages[0].role == "system" -%}
  {%- set system_message = messages[0].content -%}
  {%- if "/no_think" in system_message -%}
    {%- set reasoning_mode = "/no_think" -%}
  {%- elif "/think" in system_message -%}
    {%- set reasoning_mode = "/think" -%}
  {%- endif -%}
  {%- set custom_instructions = system_message.replace("/no_think", "").replace("/think", "").rstrip() -%}
{%- endif -%}
{%- if "/system_override" in system_message -%}
  {{- custom_instructions.replace("/system_override", "").rstrip() -}}
  {{- "<|im_end|>\n" -}}
{%- else -%}
  {{- "## Metadata\n\n" -}}
  {{- "Knowledge Cutoff Date: June 2025\n" -}}
  {%- set today = strftime_now("%d %B %Y") -%}
  {{- "Today Date: " ~ today ~ "\n" -}}
  {{- "Reasoning Mode: " + reasoning_mode + "\n\n" -}}
  {{- "## Custom Instructions\n\n" -}}
  {%- if custom_instructions -%}
    {{- custom_instructions + "\n\n" -}}
  {%- elif reasoning_mode == "/think" -%}
    {{- "You are a helpful AI assistant named SmolLM, trained by Hugging Face. Your role as an assistant involves thoroughly exploring questions through a systematic thinking process. Please structure your response into two main sections: Thought and Solution using the specified format: <think> Thought section </think> Solution section.\n\n" -}}
  {%- else -%}
    {{- "You are a helpful AI assistant named SmolLM, trained by Hugging Face.\n\n" -}}
  {%- endif -%}
  {{- "<|im_end|>\n" -}}
{%- endif -%}
{%- for message in messages -%}
    {%- set content = message.content if message.content is string else "" -%}
    {%- if message.role == "user" -%}
        {{ "<|im_start|>" + message.role + "\n"  + content + "<|im_end|>\n" }}
    {%- elif message.role == "assistant" -%}
        {%- if reasoning_mode == "/think" -%}
            {{ "<|im_start|>assistant\n" + content.lstrip("\n") + "<|im_end|>\n" }}
        {%- else -%}
            {{ "<|im_start|>assistant\n" + "<think>\n\n</think>\n" + content.lstrip("\n") + "<|im_end|>\n" }}
        {%- endif -%}
    {%- elif message.role == "tool" -%}
    {{ "<|im_start|>" + "user\n"  + content + "<|im_end|>\n" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {%- if reasoning_mode == "/think" -%}
        {{ "<|im_start|>assistant\n" }}
    {%- else -%}
        {{ "<|im_start|>assistant\n" + "<think>\n\n</think>\n"  }}
    {%- endif -%}
{%- endif -%}
""",
    "qwen2": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"),
    "qwen3": r"""{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(last_query_index=messages|length - 1, found=false) %}
{%- for message in messages[::-1] %}
    {%- if not ns.found and message.role == "user" %}
        {%- set ns.found = true %}
        {%- set ns.last_query_index = (messages|length - 1) - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in message.content %}
            {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
            {%- set reasoning_content = message.content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}""",
    "llama2": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
        "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
        "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('" + ALTERNATE + "') }}"
        "{% endif %}{% if loop.index0 == 0 and system_message != false %}"
        "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
        "{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
        "{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"),
    "llama3": (
        "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
        "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
        "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"),
    "llama3.1": r"""{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{{- "Cutting Knowledge Date: December 2023\n" }}
{{- "Today Date: " + date_string + "\n\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
""",
    "mistral-v0.1": (
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('" + ALTERNATE + "') }}{% endif %}{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
        "{{ message['content'] + eos_token + ' ' }}{% else %}"
        "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"),
    "mistral-v0.2": r"""{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('""" + MISTRAL_ROLES + r"""') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.first and system_message is defined %}
            {{- ' [INST] ' + system_message + '\n\n' + message['content'] + ' [/INST]' }}
        {%- else %}
            {{- ' [INST] ' + message['content'] + ' [/INST]' }}
        {%- endif %}
    {%- elif message['role'] == 'assistant' %}
        {{- ' ' + message['content'] + eos_token}}
    {%- else %}
        {{- raise_exception('Only user and assistant roles are supported!') }}
    {%- endif %}
{%- endfor %}
""",
    "phi3": (
        "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + "
        "'<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
        "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"),
    "phi3-first": (
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') %}"
        "{{'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'}}"
        "{% elif (message['role'] == 'assistant') %}{{message['content'] + '<|end|>' + '\n'}}{% endif %}{% endfor %}"),
    "phi3.5": (
        "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}"
        "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
        "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
        "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"),
    "phi4": (
        "{% for message in messages %}{% if (message['role'] == 'system') %}{{'<|im_start|>system<|im_sep|>' + "
        "message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + "
        "message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'assistant') %}"
        "{{'<|im_start|>assistant<|im_sep|>' + message['content'] + '<|im_end|>'}}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"),
    "phi4-reasoning": (
        "<|im_start|>system<|im_sep|>You are Phi, a language model trained by Microsoft to help users.<|im_end|>"
        "{% for message in messages %}{% if (message['role'] == 'user') %}{{'<|im_start|>user<|im_sep|>' + "
        "message['content'] + '<|im_end|>'}}{% elif (message['role'] == 'assistant') %}"
        "{{'<|im_start|>assistant<|im_sep|>' + message['content'] + '<|im_end|>'}}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"),
    "phi4-mini": (
        "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message and "
        "message['tools'] is not none %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + "
        "message['tools'] + '<|/tool|>' + '<|end|>' }}{% else %}"
        "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"),
}


def mistral_v3(inside, answer):
    return r"""{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("@ROLES@") }}
    {%- endif %}
{%- endfor %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST]@INSIDE@" + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST]@INSIDE@" + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- @ANSWER@ + eos_token}}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
""".replace("@ROLES@", MISTRAL_ROLES).replace("@INSIDE@", inside).replace("@ANSWER@", answer)


TEMPLATES["mistral-v0.3"] = mistral_v3(" ", '" " + message["content"]|trim')
TEMPLATES["mistral-nemo"] = mistral_v3("", 'message["content"]')


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
CONVERSATIONS = [
    turns((USER, "What is 12 + 30?")),
    turns((SYSTEM, "Be brief."), (USER, "Hi")),
    turns((USER, "Hi"), (ASSISTANT, "Yo"), (USER, "Why?")),
    turns((SYSTEM, "Be brief.\nAnd kind."), (USER, "One"), (ASSISTANT, "two"), (USER, "three"), (ASSISTANT, "four"),
          (USER, "five")),
    turns((SYSTEM, " spaced "), (USER, " \n both ends\t\n"), (ASSISTANT, "\u3000wide\u00a0"), (USER, "\u2003x \u2029")),
    turns((USER, ""), (ASSISTANT, ""), (USER, " ")),
    turns((SYSTEM, ""), (USER, "Hi")),
    turns((USER, "\u00e9\u4f60\U0001f600"), (ASSISTANT, "it's \"quoted\" {{ x }} {% y %}"), (USER, "<b>")),
    turns((USER, "a"), (ASSISTANT, "<think>\nso it is\n</think>\n\nyes"), (USER, "b")),
    # What some templates forbid.
    turns((ASSISTANT, "I begin"), (USER, "Hi")),
    turns((USER, "Hi"), (USER, "again")),
    turns((SYSTEM, "s"), (ASSISTANT, "a"), (USER, "u")),
    turns((USER, "Hi"), (ASSISTANT, "Yo"), (ASSISTANT, "more")),
    turns((USER, "Hi"), (SYSTEM, "late"), (USER, "Yo")),
    turns((USER, "Hi"), ("narrator", "aside"), (USER, "Yo")),
    turns((SYSTEM, "one"), (SYSTEM, "two"), (USER, "u")),
    # Switches of SmolLM3; text to all others.
    turns((SYSTEM, "Be brief. /no_think"), (USER, "Hi"), (ASSISTANT, "\n\nYo"), (USER, "Why?")),
    turns((SYSTEM, "/think Be /no_think brief.\n/no_think \u00a0/think\n"), (USER, "Hi")),
    turns((SYSTEM, "/no_think"), (USER, "Hi")),
    turns((SYSTEM, "I say it all. /system_override /think"), (USER, "Hi"), (ASSISTANT, "\nYo"), (USER, "Why?")),
]
ENDS_WITH_ANSWER = [
    turns((USER, "Hi"), (ASSISTANT, "Yo")),
    turns((SYSTEM, "Be kind."), (USER, "a"), (ASSISTANT, "b"), (USER, "c"), (ASSISTANT, " d ")),
    turns((USER, "a"), (ASSISTANT, "<think>\nhm\n</think>\n\nyes")),
    turns((SYSTEM, "/no_think"), (USER, "a"), (ASSISTANT, "<think>\n\n</think>\n\nyes")),
    turns((USER, "a"), (ASSISTANT, "<think>\nhm\n</think>\n\nyes"), (ASSISTANT, "<think>oh</think>and no")),
    turns((ASSISTANT, "<think>\nhm\n</think>\n\nyes")),
]


TODAY = "(today)"


def raise_exception(message):
    raise TemplateError(message)


def render(template, messages, prompt, bos, eos):
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    if "strftime_now is defined" not in template:
        environment.globals["strftime_now"] = lambda form: TODAY
    try:
        text = environment.from_string(template).render(messages=messages, add_generation_prompt=prompt, bos_token=bos,
                                                        eos_token=eos)
        return {"text": text.replace(f"Today Date: {TODAY}\n", "")}
    except TemplateError as error:
        return {"error": str(error)}


def ends_of(name):
    if "llama3" in name.lower().replace("-", ""):
        return "<|begin_of_text|>", "<|eot_id|>"
    if "llama2" in name or "mistral" in name.lower() or "phi3" in name:
        return "<s>", "</s>"
    return "<|endoftext|>", "<|im_end|>"


def in_turn(messages):
    return all(m["role"] == ("assistant" if i % 2 else "user") for i, m in enumerate(messages))


def misrendered(name, case, messages):
    """What a template leaves out, or puts under the wrong mark, without a word: ours refuses."""
    if "text" not in case:
        return None
    if name == "phi3-first" and not in_turn(messages):
        return "opens an answer behind every user message, and knows no system"
    if name in ("yi-1.5", "chatml-in-turn") and not in_turn(messages[messages[0]["role"] == "system":]):
        return "opens an answer behind every user message, and none elsewhere"
    if name == "phi4-mini" and any(m["role"] not in (SYSTEM, USER, ASSISTANT) for m in messages):
        return "makes a control token of every role"
    if name == "phi4-reasoning" and any(m["role"] == SYSTEM for m in messages):
        return "leaves out system"
    two_modes = "smollm3" in name.lower() and messages[0]["role"] == SYSTEM  # a message of which words are taken out
    left_out = [m for m in messages[two_modes:] if m["content"].strip() and
                m["content"].strip() not in case["text"] and "</think>" not in m["content"]]
    return f"leaves out {left_out[0]['role']}" if left_out else None


def golden_of(name, template):
    bos, eos = ends_of(name)
    cases = []
    for prompt, conversations in ((True, CONVERSATIONS), (False, ENDS_WITH_ANSWER)):
        for messages in conversations:
            case = render(template, messages, prompt, bos, eos)
            if misrendered(name, case, messages):
                case["ours_refuses"] = misrendered(name, case, messages)
            cases.append({"messages": messages, "add_generation_prompt": prompt, **case})
    return {"name": name, "template": template, "bos": bos, "eos": eos, "cases": cases}


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    templates = dict(TEMPLATES)
    for path in sorted(glob.glob(os.path.join(sys.argv[2], "*.jinja"))) if len(sys.argv) == 3 else []:
        with open(path, encoding="utf-8") as f:
            templates[os.path.basename(path)[:-6]] = f.read()
    with open(sys.argv[1], "w", encoding="utf-8") as f:
        json.dump({"made_with": "jinja2 3.1.6", "templates": [golden_of(*item) for item in templates.items()]}, f,
                  indent=1, ensure_ascii=False)
        f.write("\n")


main()
