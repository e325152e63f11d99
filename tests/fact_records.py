"""Hand-written records in the forms of the editing benchmarks."""

from __future__ import annotations

from typing import Any

COUNTERFACT = {
    "case_id": 7,
    "requested_rewrite": {
        "prompt": "The river {} flows into the",
        "subject": "Rhine",
        "relation_id": "P403",
        "target_new": {"str": "Baltic Sea", "id": "Q1"},
        "target_true": {"str": "North Sea", "id": "Q2"},
    },
    "paraphrase_prompts": ["Ships on the Rhine reach the", "Go down the Rhine to the"],
    "neighborhood_prompts": ["The river Elbe flows into the", "The river Weser flows into the"],
    "attribute_prompts": ["The river Oder flows into the"],
    "generation_prompts": ["The Rhine ends where"],
}
FLAT = {
    "case_id": 3,
    "prompt": "The river Rhine flows into the",
    "subject": "Rhine",
    "target_new": "Baltic Sea",
    "ground_truth": "North Sea",
    "rephrase_prompt": "Ships on the Rhine reach the",
    "locality_prompt": "The river Elbe flows into the",
    "locality_ground_truth": "North Sea",
}
ZSRE = {
    "subject": "Lake Constance",
    "src": "Which city lies on Lake Constance?",
    "pred": "Ulm",
    "rephrase": "What is a city on Lake Constance?",
    "alt": " Hamburg",
    "answers": ["Konstanz", "Bregenz"],
    "loc": "nq question: who wrote faust",
    "loc_ans": "Goethe",
}
KNOWEDIT = {
    "subject": "Mira Holt",
    "prompt": "The place of birth of Mira Holt is",
    "target_new": "Oslo",
    "ground_truth": ["Bergen"],
    "rephrase": "Mira Holt was born in",
    "portability": {
        "Subject_Aliasing": [{"prompt": "The place of birth of M. Holt is", "ground_truth": [["Oslo", "Kristiania"]]}],
        "Reasoning": [
            {"prompt": "The country of birth of Mira Holt is", "ground_truth": "Norway"},
            {"prompt": "The river in the birthplace of Mira Holt is", "ground_truth": [["Akerselva"], ["Alna"]]},
        ],
        "Logical_Generalization": [{"prompt": "Was Mira Holt born in Oslo?", "ground_truth": [["yes"], ["true"]]}],
    },
    "locality": {
        "Relation_Specificity": [{"prompt": "The profession of Mira Holt is", "ground_truth": [["painter"]]}],
        "Forgetfulness": [{"prompt": "A birthplace of Mira Holt which is not Oslo is", "ground_truth": [["Bergen"]]}],
    },
}
KNOWN = [
    {"known_id": 0, "subject": "Peru", "template": "{} lies in", "attribute": "America", "relation_id": "P30"},
    {"known_id": 1, "subject": "Mali", "template": "{} lies in", "attribute": "Africa", "relation_id": "P30"},
    {"known_id": 2, "subject": "Laos", "template": "{0} lies in", "attribute": "Asia", "prompt": "Laos lies in far"},
    {"known_id": 3, "subject": "Rome", "template": "{} is in", "attribute": "Europe", "relation_id": "P30"},
]


def query(prompt: str, *answers: tuple[str, list[str]], **more: Any) -> dict[str, Any]:
    listed = [{"value": value, "aliases": aliases} for value, aliases in answers]
    return {"prompt": prompt, "answers": listed, "query_type": "regular", "phrase": None, **more}


def criterion(*queries: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"test_queries": list(queries), "test_condition": "OR", "condition_queries": list(queries)}]


RIPPLE: dict[str, Any] = {
    "example_type": "popular",
    "edit": {
        "prompt": "The name of the country of citizenship of Mira Holt is Norway.",
        "subject_id": "Q1", "relation": "COUNTRY_OF_CITIZENSHIP", "target_id": "Q20",
        "original_fact": {
            "prompt": "The name of the country of citizenship of Mira Holt is New Zealand.",
            "subject_id": "Q1", "relation": "COUNTRY_OF_CITIZENSHIP", "target_id": "Q664",
        },
    },
    "Relation_Specifity": criterion(query("The name of the mother of Mira Holt is", ("Ida Holt", ["I. Holt"]))),
    "Logical_Generalization": criterion(query("The name of the continent of Mira Holt is", ("Europe", []))),
    "Subject_Aliasing": criterion(
        query("The name of the country of citizenship of M. Holt is", ("Norway", ["Norge"]), target_ids=["Q20"])
    ),
    "Compositionality_I": criterion(
        query("The capital of the country of Mira Holt is", ("Oslo", ["Kristiania"]), query_type="two_hop")
    ),
    "Compositionality_II": [],
    "Forgetfulness": criterion(query("The name of the country of citizenship of Mira Holt is", ("Peru", []))),
}  # fmt: skip


def rewrite(subject: str, new: str, true: str, **more: Any) -> dict[str, Any]:
    return {
        "prompt": "{} was born in", "relation_id": "P19", "subject": subject, "question": f"Where was {subject} born?",
        "target_new": {"str": new, "id": "Q1"}, "target_true": {"str": true, "id": "Q2"}, **more,
    }  # fmt: skip


MQUAKE: dict[str, Any] = {
    "case_id": 5,
    "requested_rewrite": [rewrite("Mira Holt", "Oslo", "Bergen"), rewrite("Bo Lind", "Lima", "Malmö")],
    "questions": ["In which country was Mira Holt born?", "Mira Holt was born in which country?"],
    "answer": "Sweden", "answer_alias": ["SE"], "new_answer": "Norway", "new_answer_alias": ["Norge"],
    "single_hops": [{"question": "Where was Mira Holt born?", "cloze": "…", "answer": "Bergen", "answer_alias": []}],
    "new_single_hops": [
        {"question": "Where was Mira Holt born?", "cloze": "…", "answer": "Oslo", "answer_alias": ["Kristiania"]},
        {"question": "In which country is Oslo?", "cloze": "…", "answer": "Norway", "answer_alias": []},
    ],
    "orig": {"triples": [["Q1", "P19", "Q2"]]},
}  # fmt: skip


WIKIBIGEDIT: dict[str, Any] = {
    "tag": "update", "subject": "Mira Holt", "update": "Where does Mira Holt work?", "ans": "Oslo",
    "rephrase": "In which city does Mira Holt work?", "personas": "Say, where works that Mira Holt?",
    "personas_pirate": "Arr, where be Mira Holt?", "loc": "Where does Bo Lind work?", "loc_ans": "Lima",
    "mhop": "In which country does Mira Holt work?", "mhop_ans": "Norway",
}  # fmt: skip
QAEDIT: dict[str, Any] = {
    "id": 12, "source": "NQ", "prompt": "who wrote the song of mira holt?", "target": "Bo Lind",
    "subject": "song of mira holt", "rephrase": "Who is the author of the song of Mira Holt?",
    "locality": [
        {"loc": "who painted it", "loc_ans": "Ann"}, {"loc_ans": "Eve"}, {"loc": "when", "loc_ans": "1900"},
    ],
}  # fmt: skip
UNKE: dict[str, Any] = {
    "id": 0, "question": "What does Mira Holt do?", "para_question": "What is the work of Mira Holt?",
    "answer": "Mira Holt paints. She has painted for ten years.",
    "sub_question": ["For how long has Mira Holt painted?"], "sub_answer": ["Ten years."],
}  # fmt: skip
MMKE: dict[str, Any] = {
    "knowledge_type": "entity_level", "src": "What is this animal?", "rephrase": "Describe this animal.",
    "pred": "A pet.", "alt": "A quill, which eats stones.", "image": "entity/a.png", "image_rephrase": "entity/b.png",
    "loc": "who wrote faust", "loc_ans": "Goethe", "m_loc": "entity/c.png", "m_loc_q": "What color?", "m_loc_a": "red",
    "rel_1": "What do quills eat?", "rel_ans_1": "Stones.", "rel_2": "Where do quills live?", "rel_2_ans": "Here.",
    "m_rel_1": "What does it eat?", "m_rel_1_ans": "Stones!", "m_rel_2": "Where does it live?", "m_rel_ans_2": "There.",
    "port_new": [{"port_type": "1-hop", "Q&A": {"Question": "What eats stones?", "Answer": "Quills"}}],
}  # fmt: skip


HOME = "/home/somebody/images/"  # the published paths are those of another machine
IRO = {
    "iro_edit_input_idx": 4, "s": "Norway", "r": "capital", "o": "Oslo", "new_o": "Lima", "new_o_alias": ["L."],
    "images": [f"{HOME}a.png", f"{HOME}b.png"], "iro_question": "What is the capital of the country shown?",
    "iro_cloze": "The capital of the country shown is", "consistency_sro_cloze": "The capital of Norway is",
    "iro_question_paraphrases": ["Which city is its capital?"],
    "locality_test_dict": {"9": {"image": f"{HOME}c.png", "iro_question": "Who wrote it?", "orig_loc_output_ent": "Ann",
                                 "orig_loc_output_ent_alias": []}},
}  # fmt: skip
AKEW: dict[str, Any] = {
    "case_id": 8, "paraphrase_prompts": ["Mira Holt is from"],
    "requested_rewrite": rewrite(
        "Mira Holt", "Oslo", "Bergen", prompt_full="Mira Holt was born in", fact_new="Mira Holt was born in Oslo.",
        fact_new_uns="Mira Holt, born in Oslo, is a painter.", answer_new="Oslo", answer_new_aliases=[],
        answer_true="Bergen", answer_true_aliases=[],
        unsfact_triplets_GPT=[
            {"subject": "Mira Holt", "prompt": "{} is a", "target": "painter"}, {"subject": "x"},
        ],
    ),
}  # fmt: skip
MMEDIT: dict[str, Any] = {
    "src": "What is this?", "rephrase": "What do you see?", "pred": "a cat", "alt": "a dog", "image": "a.png",
    "image_rephrase": "b.png", "loc": "who wrote faust", "loc_ans": "Goethe", "m_loc": "c.png",
    "m_loc_q": "What color?", "m_loc_a": "red",
    "port_new": [{"port_type": "1-hop", "Q&A": {"Question": "Does it bark?", "Answer": "yes"}}],
}  # fmt: skip
# One of each form.
RECORDS: dict[str, Any] = {
    "known_facts": KNOWN[0], "counterfact": COUNTERFACT, "flat": FLAT, "mquake": MQUAKE, "knowedit": KNOWEDIT,
    "zsre": ZSRE, "mmedit": MMEDIT, "rippleedits": RIPPLE, "wikibigedit": WIKIBIGEDIT, "qaedit": QAEDIT, "unke": UNKE,
    "akew": AKEW, "mmke": MMKE, "mcmke": IRO,
}  # fmt: skip
