"""Hand-written records in the forms of the editing benchmarks."""

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
