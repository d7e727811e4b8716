"""Words in headers that tell kernels, contrast, dual energy and parts of the body apart (hazards 8, 9, 17, 18)."""

from __future__ import annotations

#: Sharp kernels: Siemens H6x/H7x, Br6x and above, their iterative I/J/Q names, U/B7x; GE BONE, EDGE; Canon FC3x, FC8x;
#: Philips YC, YD (hazard 9).
BONE_KERNEL = (
    r"\bBONE|\bEDGE|\bLUNG|^[HBIJU][67]\d|^[BHUQ][rcpvf]\d?[6-9]\d|^FC[38]\d|^Y[CD]\b|^[DE]$|ULTRA|SHARP"
    r"|DETAIL\+"
)
#: Contrast-enhanced or angiographic (hazard 17).
CONTRAST_WORDS = (
    r"\bc\+|\+ ?c\b(?![- ]?sp)|\bcta\b|\bct[- ]?a\b|angio|[ck]ontrast|enhanced|\bce\b|\biv\+|\bkm\b|\bpdc\b|\bmdc\b"
    r"|inject|\barterial|\bvenous|perfusion|\bctp\b|delayed|gado|iodine|omnipaque|iohexol|iopamidol|visipaque"
    r"|\bpost\b(?![- ]?(op|trauma|thromb|lys|treat|surg|crani|evac|fall|mva|mvc|coil|clip|stroke|tpa|evd|drain|inter))"
)
#: Dual-energy, virtual non-contrast, mono-energetic (hazard 18).
DUAL_ENERGY_WORDS = (
    r"\bvnc\b|virtual|mono[_ ]?e|monoenerg|\bmono\b|\d+ ?kev\b|dual[- ]?energy|\bde_|\bm_0\.\d|iodine map|water\(|gsi"
    r"|spectral|\beff[- ]?z|electron density|material"
)
#: Words for the head.
HEAD_WORDS = (
    r"head|brain|skull|cran|neuro|stroke|ich\b|kopf|schaedel|schädel|schadel|tete|tête|cerebr|encef|cabeza|testa|hersen"
    r"|orbit|petrous|c[eé]r[eé]bro"
)
#: Words for other parts.
OTHER_BODY_WORDS = (
    r"chest|thora|abd|pelvi|spine|lumbar|cervical|neck|knee|hip\b|foot|leg\b|lower extrem|upper extrem|extremity"
    r"|shoulder|\blung|liver|kidney|cardiac|heart|aorta|colon|hals\b|becken|wirbel"
)
#: "Without contrast" in the languages that hospitals write it in. What follows is part of the phrase, so that it can
#: be taken out of a text and the rest searched for contrast.
PLAIN_WORDS = (
    r"(\bw ?/? ?o\b|\bwithout\b|\bohne\b|\bo\.|\bsans\b|\bsenza\b|\bsin\b|\bsem\b|\bno\b|\bnon|\bun)"
    r"[- /]*((iv|i\.v\.|intravenous)[- ]*)?([ck]ontrast\w*|km\b|cm\b|c\b|con\b|iv\b|inject\w*|pdc\b|mdc\b|enhanced)"
    r"|\bw ?/? ?o\b|\bpre\b(?![- ]?op)[- ]?([ck]ontrast\w*)?|\bnative?\b|\bc-(?=\s|$)|\bnect\b|\bncct\b|\bnc\b"
    r"|\bplain\b|[ck]ontrast\w*\s*[:=]?\s*(none|no|nein|non)\b"
)
#: An examination with and without contrast.
BOTH_RUNS = r"\b(w|with|mit|avec|con|com)\b[ /&+-]*(and|und|et|y|e)?[ /&+-]*(w ?/? ?o|without|ohne|sans|sin|sem)\b"
#: What the field of the contrast agent holds where none was given.
NO_AGENT = r"(no|none|n|n/?a|0|o|w/?o|without|nein|non|ohne|not applicable|[-.]+)"
#: PET-CT, SPECT-CT, cone-beam and angiography suites (hazard 20).
LOW_DOSE_MODELS = (
    r"\bpet\b|biograph|gemini|discovery (st|ste|rx|690|710|mi|iq|nm)|symbia|newtom|i-?cat\b|cbct|o-?arm|\bairo\b|xcat"
    r"|dyna-?ct|artis|allura|azurion|innova|xper|omnitom|ceretom|bodytom|attenuation|\bac ?ct|ct ?ac\b"
)
