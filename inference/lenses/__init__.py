"""Classification of lens images: probabilities of the kinds of substructure, and their scores.

`listing` and `reading` know how images are stored, `run` plans and resumes, `writer` saves parts,
`table` puts them together, `evaluation` compares with the truth where it is known.
"""
