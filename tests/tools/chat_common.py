"""What the generators of chat template tests share: the conversation, the variables, and Jinja2 as transformers sets it up
(tests/fixtures/gen/mk_chat_cases.py)."""
import json
import os
import sys
import warnings

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'fixtures', 'gen'))
from mk_chat_cases import Raised, environment  # noqa: E402

warnings.simplefilter('ignore')
MESSAGES = [
    {'role': 'system', 'content': 'keeper of lamps'},
    {'role': 'user', 'content': 'Hi "there"\nüñ <b>&'},
    {'role': 'assistant', 'content': '', 'tool_calls': [{'id': 'c1', 'type': 'function', 'function': {'name': 'f', 'arguments': {'a': [1, 2.5, None, True], 'b': {}}}}]},
    {'role': 'tool', 'content': 'ok', 'tool_call_id': 'c1'},
    {'role': 'user', 'content': 'more'}]
VARS = {'xs': [3, 1, 2], 'd': {'b': 1, 'a': {'c': [1, 2]}, 'items': 5}, 's': 'Hello, Wörld ß', 'f': 2.5, 'n': None, 'e': ''}
CASE = {'messages': MESSAGES, 'tools': None, 'add_generation_prompt': True, 'vars': VARS, 'bos_token': '<s>', 'eos_token': '</s>', 'now': '2026-07-26T14:05:09'}


def expected(template):
    """{'text'} or {'raised'} (raise_exception) or {'error'}: what Jinja2 does with the template."""
    try:
        t = environment().from_string(template)
        return {'text': t.render(messages=json.loads(json.dumps(MESSAGES)), tools=None, documents=None, add_generation_prompt=True,
                                 bos_token='<s>', eos_token='</s>', **json.loads(json.dumps(VARS)))}
    except Raised as e:
        return {'raised': str(e)}
    except Exception as e:
        return {'error': f'{type(e).__name__}: {e}'[:200]}
