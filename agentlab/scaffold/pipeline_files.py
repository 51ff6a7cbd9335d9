"""The two files of a first pipeline: models, and the stages that ask them."""

MODELS = """\
# Models that the stages of pipeline.yaml may ask.
#
# What is really usable:  agentlab pipeline models --models models.yaml --pipeline pipeline.yaml

models_directory: models         # where `file` is looked up; starts at this folder

defaults:                        # for every model; a model's `overrides` and a stage's own keys come before
  n_ctx: 2048                    # tokens of prompt and answer together
  temperature: 0                 # 0 takes the likeliest token
  max_tokens: 128                # tokens of an answer, at most

models:
  small:
    file: SmolLM2-135M-Instruct.Q4_1.gguf    # `agentlab models pull smollm2-135m` brings it
    quantization: Q4_1                       # compared with what the file holds
    required_for_base: true                  # base mode does not start without it
    overrides: {}                            # such as n_ctx: 4096, for this model alone

  # larger:
  #   file: Qwen2.5-7B-Instruct-Q4_K_M.gguf
  #   quantization: Q4_K_M
  #   required_for_base: false
  #   overrides: {n_ctx: 8192, n_gpu_layers: -1}
"""

PIPELINE = """\
# Stages over the models of models.yaml; the last answer is the pipeline's.
#
# Run:    agentlab pipeline --models models.yaml --pipeline pipeline.yaml --mode base --input "Why is the sky blue?"
# Check:  agentlab pipeline validate --models models.yaml --pipeline pipeline.yaml
# Plan:   add --dry-run                        (order, loads and memory)
# Keys:   agentlab configs schema pipeline     (a JSON schema, for editors)

models_file: models.yaml

base_pipeline:                   # draft -> critique -> final
  stages:
    - id: draft
      type: single
      model: small
      input_from: input          # the run's own input, as for every first stage
      output_mode: input_plus_answer     # hands on what it read and its answer; answer_only: the answer alone
      prompt: |-
        {{ input }}

        Answer in two or three sentences.

    - id: critique
      type: single
      model: small
      input_from: draft          # one stage, or a list of them
      prompt: |-
        {{ input }}

        Name the most important mistake or omission of this answer, in one sentence.

    - id: final
      type: single
      model: small
      input_from: [draft, critique]      # several answers stand under the names of their stages
      prompt: |-
        {{ input }}

        Write the final answer to the question, in two or three sentences, with the critique in mind.

manual_pipeline:                 # --mode manual: three samples -> vote
  stages:
    - id: ballot
      type: multi
      models: [small]
      samples: 3                 # answers of each model, with different seeds
      temperature: 0.8
      max_tokens: 16
      prompt: |-
        {{ input }}

        Answer with one word, "yes" or "no".
      aggregation:               # or concat, judge, synthesis, best_of, first_valid, or a template of your own
        method: vote
        extract:                 # what of an answer is its vote
          kind: label
          labels: ["yes", "no"]
        ties: first
"""
