"""Usage of datasets as the COUNTER Code of Practice for Research Data counts it (Make Data Count).

All of it follows the *Code of Practice for Research Data Usage Metrics*, release 1 (RD1): Fenner et al. 2018,
doi:10.7287/peerj.preprints.26505v1, and https://coprd.countermetrics.org/. Sections are quoted by their numbers there
(10 Processing rules, 11 SUSHI).
"""
