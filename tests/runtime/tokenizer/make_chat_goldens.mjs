// Writes tests/golden/tokenizer/chat_templates.json with the public @huggingface/jinja:
//   NODE_MODULES=<folder of @huggingface/jinja> node make_chat_goldens.mjs OUT.json
import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";
const require = createRequire(path.join(process.env.NODE_MODULES, "x.js"));
const { Template } = require("@huggingface/jinja");

const templates = {
  chatml: "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
  llama2: "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
  llama3: "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
  mistral: "{%- if messages[0][\"role\"] == \"system\" %}\n    {%- set system_message = messages[0][\"content\"] %}\n    {%- set loop_messages = messages[1:] %}\n{%- else %}\n    {%- set loop_messages = messages %}\n{%- endif %}\n{%- set ns = namespace(count=0) %}\n{{- bos_token }}\n{%- for message in loop_messages %}\n    {%- if message[\"role\"] == \"user\" %}\n        {%- set ns.count = ns.count + 1 %}\n        {%- if loop.last and system_message is defined %}\n            {{- \"[INST] \" + system_message + \"\\n\\n\" + message[\"content\"] + \"[/INST]\" }}\n        {%- else %}\n            {{- \"[INST] \" + message[\"content\"] + \"[/INST]\" }}\n        {%- endif %}\n    {%- elif message.role == \"assistant\" %}\n        {{- \" \" + message[\"content\"]|trim + eos_token}}\n    {%- endif %}\n{%- endfor %}\n{{- ns.count ~ ' turns' }}",
  blocks: "  {% for m in messages %}\n    {# a comment #}\n    {% if loop.first %}\nfirst of {{ loop.length }}\n    {% endif %}\n  {{ loop.index }}: {{ m.role | upper }} {{ m.content | length }} {{ m | tojson }}\n  {% endfor %}\nend {{ missing | default('none') }} {{ 'x' if 'user' in ['user'] and not false else 'y' }} {{ messages[-1].content[1:3] }} {{ 'n' if tools is none }} {{ 7 // 2 }}\n",
};
const turns = [
  { role: "system", content: "Be brief." }, { role: "user", content: " Hello \"you\" " },
  { role: "assistant", content: "Hi é there \n" }, { role: "user", content: "What's 2 < 3?" },
];
const cases = [];
for (const [name, template] of Object.entries(templates)) {
  for (const messages of [turns, turns.slice(1)]) {
    const variables = { messages, add_generation_prompt: messages.length === 4, bos_token: "<s>", eos_token: "</s>", tools: null };
    cases.push({ name, template, variables, expected: new Template(template).render(variables) });
  }
}
fs.writeFileSync(process.argv[2], JSON.stringify(cases, null, 1) + "\n");
