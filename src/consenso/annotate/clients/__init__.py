"""Clients: a question in, a reply out. One file per protocol, one line here."""

from consenso.annotate.clients.ollama import OllamaClient
from consenso.annotate.clients.openai import OpenAIClient
from consenso.annotate.clients.protocol import CallError, Client, Question, Reply

CLIENTS: dict[str, type[Client]] = {"openai": OpenAIClient, "ollama": OllamaClient}
"""Protocol → client."""

__all__ = ["CLIENTS", "CallError", "Client", "OllamaClient", "OpenAIClient", "Question", "Reply"]
