# Completes groups, choices and keys of rtil in bash: eval "$(rtil --shell-completion)".
_rtil()
{
    local line=${COMP_LINE:0:COMP_POINT} word=${COMP_WORDS[COMP_CWORD]} call
    if [[ ${COMP_WORDS[0]} == *python* ]]; then
        [[ ${COMP_WORDS[1]} == -m && ${COMP_WORDS[2]} == rtil.* && COMP_CWORD -gt 2 ]] || return
        call="${COMP_WORDS[0]} -m ${COMP_WORDS[2]}"
    elif ((COMP_CWORD == 1)); then
        COMPREPLY=($(compgen -W "COMMANDS" -- "$word"))
        return
    else
        call="${COMP_WORDS[0]} ${COMP_WORDS[1]}"
    fi
    COMPREPLY=($(compgen -W "$(COMP_LINE=$line $call --shell-completion query=bash 2>/dev/null)" -- "$word"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}  # KEY=VALUE is one word
complete -o nospace -o default -F _rtil rtil python python3
